"""Time and memory of ``fer-ray prepare`` by the number of rows, as a whole process with Ray's start.

    python tests/benchmarks/prepare_scale.py --rows 250000 500000 1000000 [--near-duplicates] [--folder SCRATCH]

Writes a CSV in the form of fer2013.csv with random pixels (11 to 99, 6.9 KB a row; every 32nd image is a copy of the
one before, eight of ten rows are for training), prepares it and removes both. Memory is the proportional set size (PSS)
summed over the process and all its descendants (Ray's processes, its workers and the object store, shared pages
counted once), read twice a second; the peak is printed. CPU seconds are theirs too, and say how time grows where other
work shares the cores. Before a line is printed, rows and duplicates are counted.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

PIXELS = 48 * 48
CHUNK = 5000  # rows written at once
COPY_EVERY = 32
NEED = 3 * 7000  # bytes of disk a row: the CSV, and with room to spare the pixels on their way and the dataset
USAGES = [*["Training"] * 8, "PublicTest", "PrivateTest"]


def write_csv(file: Path, rows: int) -> int:
    """Write rows and return how many are copies of the row before."""
    rng = np.random.default_rng(0)
    copies = 0
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
            copies += len(again)
            for number, line in zip(numbers.tolist(), text.reshape(count, -1), strict=True):
                out.write(b"%d,%b,%b\n" % (number % 7, line[:-1].tobytes(), USAGES[number % 10].encode()))
    return copies


def usage(root: int) -> dict[psutil.Process, tuple[float, int]]:
    """Return CPU seconds and bytes (PSS) of a process and its descendants; of those that have ended, nothing."""
    found = dict[psutil.Process, tuple[float, int]]()
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(root)
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                found[member] = times.user + times.system, member.memory_full_info().pss
    return found


def measure(source: Path, dest: Path, options: list[str]) -> tuple[float, float, int]:
    """Return seconds, CPU seconds, and the peak memory in bytes."""
    command = [sys.executable, "-m", "fer_ray.prepare", str(source), str(dest), *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    began, peak, seen = time.perf_counter(), 0, dict[psutil.Process, float]()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            now = usage(process.pid)
            seen |= {member: cpu for member, (cpu, _) in now.items()}
            peak = max(peak, sum(memory for _, memory in now.values()))
            time.sleep(0.5)
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(f"fer-ray prepare: exit code {process.returncode}")
    return seconds, sum(seen.values()), peak


def check(dest: Path, rows: int, copies: int) -> None:
    """Stop unless the dataset holds what was written."""
    from fer_ray.dataset.store import PreparedDataset

    info = PreparedDataset(dest).info
    held = sum(split.rows for split in info.splits.values()), sum(split.duplicates for split in info.splits.values())
    if held != (rows, copies):
        sys.exit(f"{held[0]} rows with {held[1]} duplicates, {rows} and {copies} expected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where there is room for the files")
    parser.add_argument("--near-duplicates", action="store_true", help="prepare with that option")
    arguments = parser.parse_args()
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    if free < max(arguments.rows) * NEED:
        sys.exit(f"{free / 1e9:.0f} GB of disk are free, {max(arguments.rows) * NEED / 1e9:.0f} GB needed")
    options = ["--near-duplicates"] if arguments.near_duplicates else []
    print(f"{os.cpu_count()} cores {platform.processor() or platform.machine()}; {options}", flush=True)
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            source, dest = Path(folder) / "fer2013.csv", Path(folder) / "dataset"
            copies = write_csv(source, rows)
            seconds, cpu, peak = measure(source, dest, options)
            check(dest, rows, copies)
        print(
            f"{rows:>10,} rows: {seconds:.1f} s, {rows / seconds:,.0f} rows/s; {cpu:.1f} CPU s,"
            f" {1e6 * cpu / rows:.0f} µs a row; peak {peak / 2**30:.2f} GiB; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
