"""Training speed with rows memory-mapped from a file beside rows in memory, and the memory that each takes.

    python tests/benchmarks/mapped_speed.py --images 2000000 --repeats 5

A dataset of generated pixels is written as ``prepare`` writes it. ``fast`` then trains a fixed number of steps, once
with mapped rows and once with rows in memory, in processes of their own that take turns. Before each mapped run the
system's page cache forgets the file, so every row comes from the disk. A ratio is the mapped images/s over those
in memory, after the first steps. Prints the median of the ratios and their spread, and the peak of the proportional set
size (PSS) that a process added to what it had before its rows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fer_ray.config.files import load_config
from fer_ray.console.text import describe_bytes
from fer_ray.dataset.store import DATASET_FILE, DatasetInfo, PreparedDataset, SplitInfo, schema
from fer_ray.dataset.writer import GROUP_ROWS
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.storage.inputs import cache_folder
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData

SIZE, FILE_ROWS = 48, 16_384
WARM_UP = 10


def write_dataset(folder: Path, images: int) -> PreparedDataset:
    """Write generated images as a prepared dataset."""
    generator, splits = np.random.default_rng(0), {}
    for split, rows in (("train", images), ("validation", 700)):
        (folder / split).mkdir(parents=True)
        labels = np.arange(rows) * NUM_CLASSES // rows
        for part, start in enumerate(range(0, rows, FILE_ROWS)):
            own = labels[start : start + FILE_ROWS]
            table = _table(generator, [f"{split}/{number}" for number in range(start, start + len(own))], own)
            pq.write_table(
                table,
                folder / split / f"part-{part:05}.parquet",
                compression="none",
                write_statistics=["id"],
                row_group_size=GROUP_ROWS,
            )
        counts = np.bincount(labels, minlength=NUM_CLASSES).tolist()
        splits[split] = SplitInfo(rows=rows, labels=dict(zip(EMOTIONS, counts, strict=True)))
    info = DatasetInfo(
        fer_ray_version="0",
        source="generated",
        source_format="generated",
        size=SIZE,
        splits=splits,
        mean=0.5,
        std=0.29,
        fingerprint=f"generated {images}",
    )
    (folder / DATASET_FILE).write_text(info.model_dump_json())
    return PreparedDataset(folder)


def _table(generator: np.random.Generator, ids: list[str], labels: np.ndarray) -> pa.Table:
    rows = len(ids)
    pixels = generator.integers(0, 256, rows * SIZE**2, dtype=np.uint8)
    columns = [
        pa.array(ids),
        pa.array(labels, pa.int8()),
        pa.FixedSizeListArray.from_arrays(pa.array(pixels), SIZE**2),
        pa.array(np.full(rows, SIZE), pa.int32()),
        pa.array(np.full(rows, SIZE), pa.int32()),
        pa.nulls(rows, pa.string()),
        pa.nulls(rows, pa.string()),
        pa.array([[]] * rows, pa.list_(pa.string())),
    ]
    return pa.Table.from_arrays(columns, schema=schema(SIZE))


class _DoneError(Exception):
    pass


def train_some(dataset: PreparedDataset, mapped: bool, steps: int, overrides: list[str]) -> dict[str, float]:
    """Train a number of steps in this process, and return images/s, seconds to the first step, and bytes of memory."""
    config = load_config(None, ["schedule.first_size=1", *overrides])
    before = _pss()
    peak, stop = [before], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak.append(_pss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, moments, images = time.perf_counter(), list[float](), list[int]()

    def on_batch(count: int) -> None:
        moments.append(time.perf_counter())
        images.append(count)
        if len(moments) == WARM_UP + steps:
            raise _DoneError

    try:
        rows = TrainingData.load(dataset, ["validation"] if mapped else ["train", "validation"])
        if mapped:
            forget()
        loaded = time.perf_counter()
        fit(config, rows, lambda metrics, snapshot: None, on_batch)
    except _DoneError:
        pass
    finally:
        stop.set()
        watcher.join()
    speed = sum(images[WARM_UP:]) / (moments[-1] - moments[WARM_UP - 1])
    return {
        "images_per_s": speed,
        "load_s": loaded - began,
        "first_step_s": moments[0] - loaded,
        "memory": max(peak) - before,
        "peak": max(peak),
    }


def forget() -> None:
    """Let the system's page cache forget the temporary file of the training images."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not files
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(cache_folder())):  # noqa: PTH115
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _pss() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="config override for both sides")
    parser.add_argument("--folder", type=Path, help="for the dataset, to keep it; used again if it exists")
    parser.add_argument("--one", choices=("mapped", "in memory"), help="train once and print the figures")
    arguments = parser.parse_args()
    if arguments.one:
        dataset = PreparedDataset(arguments.folder)
        print(json.dumps(train_some(dataset, arguments.one == "mapped", arguments.steps, arguments.set)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("FER_RAY_CACHE", f"{scratch}/cache")
        folder = arguments.folder or Path(scratch) / "dataset"
        dataset = PreparedDataset(folder) if folder.is_dir() else write_dataset(folder, arguments.images)
        print(f"{arguments.images:,} images, {describe_bytes(arguments.images * dataset.info.row_bytes)}", flush=True)
        ratios = [_pair(folder, arguments, repeat) for repeat in range(arguments.repeats)]
    print(
        f"mapped over in memory: ratio median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}),"
        f" n = {len(ratios)}; {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch"
        f" {torch.__version__}"
    )


def _pair(folder: Path, arguments: argparse.Namespace, repeat: int) -> float:
    figures = {}
    for side in ("mapped", "in memory"):
        call = [sys.executable, __file__, "--folder", str(folder), "--one", side, "--steps", str(arguments.steps)]
        call += [part for override in arguments.set for part in ("--set", override)]
        said = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
        figures[side] = one = json.loads(said)
        print(
            f"{repeat + 1} {side}: {one['images_per_s']:,.0f} images/s, rows loaded in {one['load_s']:.1f} s, first"
            f" step after {one['first_step_s']:.1f} s, PSS at most {describe_bytes(one['peak'])}, of it"
            f" {describe_bytes(one['memory'])} for rows and training",
            flush=True,
        )
    return float(figures["mapped"]["images_per_s"] / figures["in memory"]["images_per_s"])


if __name__ == "__main__":
    main()
