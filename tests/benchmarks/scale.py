"""Time and memory of ``fer-ray prepare`` and ``fer-ray score`` by the number of their inputs, Ray's start included.

    python tests/benchmarks/scale.py prepare --counts 250000 500000 1000000 [-- --near-duplicates]
    python tests/benchmarks/scale.py score --counts 10000 100000 1000000

``prepare`` reads a CSV in the form of fer2013.csv with random pixels (6.9 KB a row; every 32nd image is a copy of the
one before); ``score`` labels drawn JPEGs of 48 × 48 pixels. Memory is the proportional set size (PSS) of the driver,
and of all its processes together with shared pages counted once; the peak is printed. CPU time is that of all
processes. Before a line is printed, rows are counted. What follows ``--`` goes to the stage.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq
from common import machine, options, stage
from process_tree import descendants
from score_images import write_faces

PIXELS = 48 * 48
CHUNK = 5000  # rows written at once
COPY_EVERY = 32
USAGES = [*["Training"] * 8, "PublicTest", "PrivateTest"]


class Usage(NamedTuple):
    """Of a stage: seconds, CPU seconds, and the peak memory of the driver and of all processes in bytes."""

    seconds: float
    cpu_s: float
    driver: int
    total: int


def write_csv(file: Path, rows: int) -> None:
    """Write a CSV of random images."""
    rng = np.random.default_rng(0)
    with file.open("wb") as out:
        out.write(b"emotion,pixels,Usage\n")
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            numbers = np.arange(start, start + count)
            text = np.full((count, PIXELS, 3), ord(" "), np.uint8)
            text[:, :, :2] = rng.integers(ord("1"), ord("9"), (count, PIXELS, 2), np.uint8, endpoint=True)
            again = np.flatnonzero(numbers % COPY_EVERY == 1)
            again = again[again > 0]
            text[again] = text[again - 1]
            for number, line in zip(numbers.tolist(), text.reshape(count, -1), strict=True):
                out.write(b"%d,%b,%b\n" % (number % 7, line[:-1].tobytes(), USAGES[number % 10].encode()))


def watch(command: list[str]) -> Usage:
    """Run a command, and return what it and its descendants used."""
    began, cpu, driver, total = time.perf_counter(), dict[psutil.Process, float](), 0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = dict[int, int]()
            with suppress(psutil.NoSuchProcess):
                for one in [psutil.Process(process.pid), *descendants(process.pid)]:
                    with suppress(psutil.NoSuchProcess):
                        times = one.cpu_times()
                        cpu[one], sizes[one.pid] = times.user + times.system, one.memory_full_info().pss
            driver, total = max(driver, sizes.get(process.pid, 0)), max(total, sum(sizes.values()))
            time.sleep(0.5)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
    return Usage(time.perf_counter() - began, sum(cpu.values()), driver, total)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("stage", choices=["prepare", "score"])
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, help="with room for the files")
    parser.add_argument("options", nargs="*", help="of the stage")
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.stage} {' '.join(arguments.options)}", flush=True)
    for count in arguments.counts:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            source, output = Path(folder) / "source", Path(folder) / "output"
            if arguments.stage == "prepare":
                write_csv(source, count)
                command, tables = stage("prepare", source, output), "t*/*.parquet validation/*.parquet"
            else:
                write_faces(source, count)
                command, tables = stage("score", source, "--output", output), "part-*.parquet"
            used = watch([*command, *arguments.options])
            files = [file for pattern in tables.split() for file in output.glob(pattern)]
            rows = sum(pq.read_metadata(file).num_rows for file in files)
            if rows != count:
                sys.exit(f"{rows:,} rows, {count:,} expected")
        print(
            f"{count:>10,}: {used.seconds:.1f} s, {count / used.seconds:,.0f} a second; {used.cpu_s:.1f} CPU s,"
            f" {1e6 * used.cpu_s / count:.0f} µs each; driver {used.driver / 2**20:.0f} MiB, all processes"
            f" {used.total / 2**20:,.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
