"""Start nodes through the cluster's autoscaler and wait for them, or let idle nodes stop.

``tune``, ``score`` and ``train --workers`` plan with the nodes that exist when they start, and request no others: start
nodes first.

    ray job submit --working-dir . -- python cluster/nodes.py --gpus 4
    ray job submit --working-dir . -- python cluster/nodes.py --release

The nodes stay until ``--release``, used or not. Without an autoscaler the command finds the existing nodes at once.
"""

import argparse
import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

_PAUSE_S = 5.0


def bundles(cpus: int, gpus: int) -> list[dict[str, float]]:
    """Return the resources to request from the autoscaler, one unit each, so that any mix of nodes can provide them."""
    return [{"GPU": 1.0}] * gpus + [{"CPU": 1.0}] * cpus


def wait_for(cpus: int, gpus: int, timeout_s: float) -> bool:
    """Wait until the cluster has at least these CPUs and GPUs, used or not; return False after the timeout."""
    end, printed = time.monotonic() + timeout_s, ""
    while True:
        resources = ray.cluster_resources()
        has = {"CPU": int(resources.get("CPU", 0)), "GPU": int(resources.get("GPU", 0))}
        needed = {kind: count for kind, count in {"CPU": cpus, "GPU": gpus}.items() if count}
        counts = ", ".join(f"{has[kind]} of {count} {kind}s" for kind, count in needed.items())
        if counts != printed:
            print(counts, flush=True)
            printed = counts
        if all(has[kind] >= count for kind, count in needed.items()):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)


def main() -> None:
    """Exit with 0 if the nodes exist or were released, 1 after the timeout, 2 for a wrong call."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpus", type=int, default=0, help="CPUs of the whole cluster, existing ones included.")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the whole cluster, existing ones included.")
    parser.add_argument("--timeout", type=float, default=30, help="Minutes to wait.")
    parser.add_argument("--release", action="store_true", help="Let idle nodes stop.")
    arguments = parser.parse_args()
    if arguments.release == bool(arguments.cpus or arguments.gpus):
        parser.error("give --cpus, --gpus or both, or else --release.")
    ray.init("auto", log_to_driver=False)
    request_resources(bundles=bundles(arguments.cpus, arguments.gpus))
    if arguments.release:
        print("Idle nodes will stop.")
        return
    print(f"Waiting at most {arguments.timeout:g} minutes (--timeout).", flush=True)
    if not wait_for(arguments.cpus, arguments.gpus, arguments.timeout * 60):
        request_resources(bundles=[])
        sys.exit(
            f"The nodes did not start within {arguments.timeout:g} minutes; the request is withdrawn. `ray status`"
            " shows what the autoscaler waits for. Check max_workers in the cluster's YAML and your quota."
        )


if __name__ == "__main__":
    main()
