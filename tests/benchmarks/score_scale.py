"""Whether scoring stays as fast, and as small, with ten and a hundred times the images.

    python tests/benchmarks/score_scale.py --files 10000 100000 1000000

Scores that many small JPEGs by ``fer-ray score`` in a process of its own and watches it: images/s from the first batch
on, the most memory of the driver (USS: what it shares with nobody), of all processes (PSS) and of the object store (its
file in shared memory), and the seconds of listing. Rows are counted and compared with the files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from process_tree import descendants
from score_images import write_faces

MIB = 1 << 20


def watch(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Return the most memory of a job, in MiB, until it ends."""
    most = {"driver": 0.0, "all": 0.0, "object store": 0.0}
    while process.poll() is None:
        now = {"driver": 0.0, "all": 0.0, "object store": 0.0}
        for one in [psutil.Process(process.pid), *descendants(process.pid)]:
            with suppress(psutil.NoSuchProcess):
                memory = one.memory_full_info()
                now["all"] += memory.pss / MIB
                if one.pid == process.pid:
                    now["driver"] = memory.uss / MIB
                if "/raylet/raylet" in " ".join(one.cmdline()).split(" --")[0]:
                    now["object store"] = memory.shared / MIB
        most = {name: max(size, now[name]) for name, size in most.items()}
        time.sleep(1)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--tta", default="flip")
    arguments = parser.parse_args()
    for files in arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            images, output = Path(folder) / "images", Path(folder) / "labels"
            write_faces(images, files, None)
            command = [sys.executable, "-m", "fer_ray.score", str(images), "--output", str(output)]
            process = subprocess.Popen([*command, "--tta", arguments.tta], stdout=subprocess.DEVNULL)
            most = watch(process)
            if process.returncode:
                sys.exit(f"the job ended with {process.returncode}")
            paths = set[str]()
            parts = sorted(output.glob("part-*.parquet"))
            for part in parts:
                table = pq.read_table(part, columns=["path", "status"])
                paths.update(table["path"].to_pylist())
                if table["status"].value_counts().to_pylist() != [{"values": "ok", "counts": len(table)}]:
                    sys.exit(f"{part}: rows that are not ok")
            if len(paths) != files:
                sys.exit(f"{len(paths):,} different rows, {files:,} expected")
            summary = json.loads((output / "summary.json").read_text())
            rate = files / summary["seconds_from_first_batch"]
            memory = ", ".join(f"{name} {size:,.0f} MiB" for name, size in most.items())
            listing = summary["stages"]["listing"]["seconds"]
            print(f"{files:,}: {rate:,.0f} images/s, {memory}; listing {listing:.1f} s; {len(parts)} parts", flush=True)


if __name__ == "__main__":
    main()
