"""Training speed where rows stream from disk beside rows in memory, and the memory that streaming takes.

    python tests/benchmarks/stream_speed.py --images 2000000 --memory 2GiB --repeats 5

A dataset of generated pixels is written as ``prepare`` writes them, sorted by label, which is the hardest order to mix.
``fast`` then trains a fixed number of steps on it, once streamed within the memory given and once held in memory, in
processes of their own that take turns. A ratio is the streamed images/s over the held ones, after the first steps; the
clock also runs over the wait for the first batch, which is printed. Prints the median of the ratios and their spread,
and the peak of the proportional set size (PSS) that a process added to what it had before its rows.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fer_ray.cluster.memory import parse_bytes
from fer_ray.config.files import load_config
from fer_ray.console.text import describe_bytes
from fer_ray.dataset.placement import Placement
from fer_ray.dataset.store import DATASET_FILE, DatasetInfo, PreparedDataset, SplitInfo, schema
from fer_ray.dataset.writer import GROUP_ROWS
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData

SIZE, FILE_ROWS = 48, 16_384
WARM_UP = 10


def write_dataset(folder: Path, images: int) -> PreparedDataset:
    """Write generated images as a prepared dataset, sorted by label."""
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


def train_some(dataset: PreparedDataset, memory: int, steps: int, overrides: list[str]) -> dict[str, float]:
    """Train a number of steps in this process, and return images/s, seconds to the first step, and bytes of memory."""
    config = load_config(None, ["schedule.first_size=1", *overrides])
    placement = Placement(dataset, 1, memory)
    fit_nothing = _pss()
    peak, stop = [fit_nothing], threading.Event()

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
        rows = TrainingData(placement.load("train", 0), placement.load("validation", 0), dataset.info)
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
        "memory": max(peak) - fit_nothing,
        "peak": max(peak),
        "streamed": not placement.holds("train"),
    }


def _pss() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--memory", default="2GiB", help="for the rows where they stream")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="config override for both sides")
    parser.add_argument("--folder", type=Path, help="for the dataset, to keep it; used again where it is there")
    parser.add_argument("--one", type=int, help="train once with so many bytes for the rows, and print its figures")
    arguments = parser.parse_args()
    if arguments.one:
        dataset = PreparedDataset(arguments.folder)
        print(json.dumps(train_some(dataset, arguments.one, arguments.steps, arguments.set)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "dataset"
        dataset = PreparedDataset(folder) if folder.is_dir() else write_dataset(folder, arguments.images)
        print(f"{arguments.images:,} images, {describe_bytes(arguments.images * dataset.info.row_bytes)}", flush=True)
        ratios = [_pair(folder, arguments, repeat) for repeat in range(arguments.repeats)]
    print(
        f"streamed over held: ratio median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}),"
        f" n = {len(ratios)}; {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch"
        f" {torch.__version__}"
    )


def _pair(folder: Path, arguments: argparse.Namespace, repeat: int) -> float:
    figures = {}
    for side, memory in (("streamed", parse_bytes(arguments.memory)), ("held", 1 << 60)):
        call = [
            sys.executable,
            __file__,
            "--folder",
            str(folder),
            "--one",
            str(memory),
            "--steps",
            str(arguments.steps),
        ]
        call += [part for override in arguments.set for part in ("--set", override)]
        said = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
        figures[side] = one = json.loads(said)
        assert one["streamed"] == (side == "streamed"), f"{side}: the rows don't fit as meant; change --memory"
        print(
            f"{repeat + 1} {side}: {one['images_per_s']:,.0f} images/s, rows loaded in {one['load_s']:.1f} s, first"
            f" step after {one['first_step_s']:.1f} s, PSS at most {describe_bytes(one['peak'])}, of it"
            f" {describe_bytes(one['memory'])} for rows and training",
            flush=True,
        )
    return float(figures["streamed"]["images_per_s"] / figures["held"]["images_per_s"])


if __name__ == "__main__":
    main()
