"""What scoring costs on a cluster of several nodes, and how much of that is Ray's.

    python tests/benchmarks/cluster_scale.py --raylets 1 2 4 --files 100000 --json scaling_measured.json

Each job labels drawn JPEGs of 48 × 48 pixels on a cluster of so many nodes of one CPU, all on this machine, beside a
head without CPUs. From the beginning of the first chunk to the last row (the *window*) the CPU seconds of every process
are read and added up by kind. Ray's share of the CPU time is all but what the same images take of processes without Ray
(``bare_score``), as many as there are nodes and cores, and what the driver takes to merge parts. The watching takes CPU
time too; it is given, and counted as nobody's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from process_tree import descendants
from ray_nodes import REPOSITORY, Nodes, running_nodes
from scaling_model import cpu_share, peers
from score_images import write_faces

BENCHMARKS = Path(__file__).parent
KINDS = {
    "_ScoringActor": "actors",
    "/raylet/raylet": "raylets",
    "gcs_server": "GCS",
    "gent": "agents",  # of the dashboard and of runtime environments, a pair a node
    "ray::": "other workers",
}
"""By what a command line has in it, the first that fits."""
OTHERS = "other of Ray"
WATCH_S, LIST_S = 0.5, 3.0
MIB = 1 << 20


class Watch:
    """The CPU seconds of a job's processes at moments, and the most memory."""

    def __init__(self, driver: int, roots: list[int]) -> None:
        self._driver, self._roots = driver, roots
        self._kinds: dict[psutil.Process, str] = {}
        self.moments = list[tuple[float, dict[psutil.Process, float]]]()
        self.driver_mib = self.store_mib = 0.0

    def until_end(self, process: subprocess.Popen[bytes]) -> None:
        """Watch until the driver has ended."""
        listed = 0.0
        while process.poll() is None:
            if time.monotonic() - listed > LIST_S:
                self._list()
                listed = time.monotonic()
            cpu = {}
            for one in self._kinds:
                with suppress(psutil.Error):
                    times = one.cpu_times()
                    cpu[one] = times.user + times.system
            self.moments.append((time.time(), cpu))
            time.sleep(WATCH_S)

    def by_kind(self, began: float, ended: float) -> dict[str, float]:
        """Return CPU seconds between two moments."""
        spent = defaultdict[str, float](float)
        for one, kind in self._kinds.items():
            spent[kind] += self._at(one, ended) - self._at(one, began)
        return dict(spent)

    def processes(self) -> int:
        """Return how many processes were met."""
        return len(self._kinds)

    def _at(self, one: psutil.Process, moment: float) -> float:
        """Return a process's CPU seconds at a moment, in proportion between two readings."""
        before, value = 0.0, 0.0
        for now, cpu in self.moments:
            if one not in cpu:
                continue
            if now >= moment:
                part = (moment - before) / (now - before) if before else 1.0
                return value + part * (cpu[one] - value)
            before, value = now, cpu[one]
        return value

    def _list(self) -> None:
        found = {psutil.Process(self._driver): "driver"}
        store = 0.0
        for root in self._roots:
            for one, line in descendants(root).items():
                found[one] = next((kind for word, kind in KINDS.items() if word in line.split(" --")[0]), OTHERS)
                if found[one] == "raylets":
                    with suppress(psutil.Error):
                        store += one.memory_info().shared / MIB
        for one, kind in found.items():
            if self._kinds.get(one) != "actors":
                self._kinds[one] = kind
        self.store_mib = max(self.store_mib, store)
        with suppress(psutil.Error):
            self.driver_mib = max(self.driver_mib, psutil.Process(self._driver).memory_full_info().uss / MIB)


def run(nodes: Nodes, images: Path, output: Path, files: int, batch_size: str) -> dict[str, Any]:
    """Score once, and return what was measured."""
    notes = output.with_suffix(".json")
    paths = os.pathsep.join([nodes.environment["PYTHONPATH"], str(BENCHMARKS)])
    process = nodes.driver(
        "timed_score",
        *(notes, images, "--output", output, "--batch-size", batch_size),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=nodes.environment | {"PYTHONPATH": paths},
    )
    watch = Watch(process.pid, [nodes.head.process.pid, *(node.process.pid for node in nodes.workers)])
    own = time.process_time()
    watch.until_end(process)
    own = time.process_time() - own
    if process.returncode:
        sys.exit(f"the job ended with {process.returncode}")
    summary, noted = json.loads((output / "summary.json").read_text()), json.loads(notes.read_text())
    parts = sorted(output.glob("part-*.parquet"))
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    if rows != files or summary["by_status"] != {"ok": files}:
        sys.exit(f"{rows:,} rows, {files:,} expected; by status {summary['by_status']}")
    ended, window = noted["score_parts"]["ended"], summary["seconds_from_first_batch"]
    manifests = list(output.glob("_manifest-*"))
    return {
        "raylets": len(nodes.workers),
        "load": os.getloadavg()[0],
        "files": files,
        "seconds": summary["seconds"],
        "window_s": window,
        "images_per_s": files / window,
        "cpu_s": watch.by_kind(ended - window, ended),
        "watching_cpu_s": own * window / summary["seconds"],
        "actor_stages_s": {
            stage: of["seconds"] * len(nodes.workers) for stage, of in summary["stages"].items() if stage != "listing"
        },
        "batch_size": summary["batch_size"],
        "precision": summary["precision"],
        "listing_s": summary["stages"]["listing"]["seconds"],
        "driver_functions": noted,
        "chunks": sum(pq.read_metadata(one).num_row_groups for one in manifests),
        "parts": len(parts),
        "manifest_bytes": sum(one.stat().st_size for one in manifests),
        "parts_bytes": sum(part.stat().st_size for part in parts),
        "driver_mib": watch.driver_mib,
        "object_stores_mib": watch.store_mib,
        "processes": watch.processes(),
    }


def bare(output: Path, processes: int) -> dict[str, Any]:
    """Measure the same work without Ray."""
    command = [sys.executable, "-m", "bare_score", str(output), "--processes", str(processes)]
    paths = os.pathsep.join(map(str, (REPOSITORY, BENCHMARKS)))
    measured: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": paths}).stdout
    )
    return measured | {"images_per_s": measured["images"] / measured["seconds"]}


def describe(job: dict[str, Any]) -> str:
    """Return a job's measurements as a line."""
    cpu = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(job["cpu_s"].items()))
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in job["actor_stages_s"].items())
    noted = ", ".join(f"{name} {of['seconds']:.2f}" for name, of in job["driver_functions"].items())
    return (
        f"{job['raylets']} raylets, {job['files']:,} files: {job['images_per_s']:,.0f} images/s over"
        f" {job['window_s']:.1f} s of {job['seconds']:.1f}; CPU s {cpu}; actors' stages {stages}; driver {noted};"
        f" watching {job['watching_cpu_s']:.1f}; listing {job['listing_s']:.2f} s; {job['chunks']} chunks,"
        f" {job['parts']} parts of {job['parts_bytes']:,} bytes, manifest {job['manifest_bytes']:,}; driver"
        f" {job['driver_mib']:.0f} MiB, object stores {job['object_stores_mib']:.0f} MiB"
    )


def keep(file: Path | None, **measured: Any) -> None:
    """Put measurements into a JSON file, beside those that it has of other kinds."""
    if file:
        previous = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(previous | measured, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raylets", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--files", type=int, nargs="+", default=[100_000])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch-size", default="auto", help="as for fer-ray score; beside other work auto errs")
    parser.add_argument("--without-bare", action="store_true", help="measure no process without Ray")
    parser.add_argument("--json", type=Path, help="to add the measurements to")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    jobs, bare_runs = list[dict[str, Any]](), list[dict[str, Any]]()
    if arguments.json and arguments.json.exists():
        previous = json.loads(arguments.json.read_text())
        jobs, bare_runs = previous.get("scoring", []), previous.get("bare", [])
    with tempfile.TemporaryDirectory() as folder:
        for files in arguments.files:
            images = Path(folder) / f"images-{files}"
            write_faces(images, files, None)
            for repeat in range(arguments.repeats):
                for raylets in arguments.raylets:
                    output = Path(folder) / f"labels-{files}-{raylets}-{repeat}"
                    with running_nodes(head_cpus=0) as nodes:
                        for _ in range(raylets):
                            nodes.add(cpus=1)
                        jobs.append(run(nodes, images, output, files, arguments.batch_size))
                    print(describe(jobs[-1]), flush=True)
                    keep(arguments.json, scoring=jobs, cores=cores)
                for processes in sorted({min(count, cores) for count in arguments.raylets}):
                    if arguments.without_bare:
                        break
                    bare_runs.append(bare(output, processes))
                    print(f"without Ray, {processes} processes: {bare_runs[-1]}", flush=True)
                    keep(arguments.json, bare=bare_runs)
    for job in jobs:
        if peers(job, bare_runs, cores):
            of_cpu = cpu_share(job, bare_runs, cores)
            print(f"{job['raylets']} raylets, {job['files']:,} files: Ray's share of the CPU time {of_cpu:.1%}")


if __name__ == "__main__":
    main()
