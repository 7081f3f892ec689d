"""Ask the cluster's autoscaler for nodes and wait until they are there, or let them go again.

``tune``, ``score`` and ``train --workers`` plan with the nodes that there are when they begin, and ask for no others:
bring these up first.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python cluster/nodes.py --gpus 4
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python cluster/nodes.py --release

Until then they stay, whether they are used or not. It can be tried where nothing is scaled: what is there already is
found at once.
"""

import argparse
import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

_PAUSE_S = 5.0


def wanted(cpus: int, gpus: int) -> list[dict[str, float]]:
    """Return what the autoscaler shall make room for, however it is spread over nodes."""
    return [{"GPU": 1.0}] * gpus + [{"CPU": 1.0}] * cpus


def wait_for(cpus: int, gpus: int, timeout_s: float) -> bool:
    """Wait until the cluster has so many CPUs and GPUs, used or not; return whether it has."""
    end, said = time.monotonic() + timeout_s, ""
    while True:
        there_is = ray.cluster_resources()
        has = {"CPU": int(there_is.get("CPU", 0)), "GPU": int(there_is.get("GPU", 0))}
        counts = ", ".join(
            f"{has[kind]} {kind}s of {count}" for kind, count in {"CPU": cpus, "GPU": gpus}.items() if count
        )
        if counts != said:
            print(counts, flush=True)
            said = counts
        if has["CPU"] >= cpus and has["GPU"] >= gpus:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)


def main() -> None:
    """Exit code 0: the nodes are there, or were let go; 1: they didn't come in time; 2: a wrong call."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpus", type=int, default=0, help="CPUs in all, those that are there included.")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs in all, those that are there included.")
    parser.add_argument("--timeout", type=float, default=30, help="Minutes to wait.")
    parser.add_argument("--release", action="store_true", help="Let idle nodes go again.")
    asked = parser.parse_args()
    if asked.release == bool(asked.cpus or asked.gpus):
        parser.error("give --cpus, --gpus or both, or else --release.")
    ray.init("auto", log_to_driver=False)
    request_resources(bundles=wanted(asked.cpus, asked.gpus))
    if asked.release:
        print("Nodes that stay idle will be let go.")
        return
    print(f"Waiting {asked.timeout:g} minutes at most (--timeout).", flush=True)
    if not wait_for(asked.cpus, asked.gpus, asked.timeout * 60):
        request_resources(bundles=[])
        sys.exit(
            f"Not there after {asked.timeout:g} minutes, and asked for no longer. `ray status` says what the autoscaler"
            " waits for; look at the limits in the cluster's YAML, and at your quota."
        )


if __name__ == "__main__":
    main()
