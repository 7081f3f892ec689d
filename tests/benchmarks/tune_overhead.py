"""What a search costs a trial beyond its training loop.

    python tests/benchmarks/tune_overhead.py --dataset DATASET --model cnn3 --trials 8

Searches a 4,000-image subset, one trial at a time. A trial's time runs from the end of the trial before it, so that the
gaps between trials count: choosing parameters, writing the study, starting, building the network, keeping the best
checkpoint. From it goes what the loop itself says of its epochs (training and validation). The first trial, which also
starts Ray and a process, is shown apart.
"""

import argparse
import platform
import statistics
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import torch

from fer_ray.data.store import DATASET_FILE, PreparedDataset
from fer_ray.tune import tune

SPACES = Path(__file__).parents[2] / "search_spaces"
ROWS = {"train": 4000, "validation": 1000}


def subset(dataset: PreparedDataset, folder: Path) -> Path:
    """Write some rows of a prepared dataset, drawn with a fixed seed, as one of its own."""
    generator = np.random.default_rng(0)
    info = dataset.info.model_copy(deep=True)
    info.splits = {name: split for name, split in info.splits.items() if name in ROWS}
    for name, split in info.splits.items():
        rows = generator.permutation(split.rows)[: ROWS[name]]
        table = dataset.table(name).take(rows)
        split.rows = len(table)
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "part-0.parquet")
    (folder / DATASET_FILE).write_text(info.model_dump_json(), encoding="utf-8")
    return folder


def measure(dataset: Path, run: Path, model: str, trials: int, epochs: int) -> list[float]:
    """Return each trial's seconds beyond its loop, the first trial's included."""
    started = datetime.now()
    result = tune(
        dataset,
        [SPACES / f"{model}.yaml"],
        run,
        trials=trials,
        max_concurrent=1,
        overrides=[f"training.epochs={epochs}"],
    )
    storage = f"sqlite:///{run / 'study.db'}"
    study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
    ends = [started, *(trial.datetime_complete for trial in study.trials if trial.datetime_complete)]
    walls = [(end - before).total_seconds() for before, end in pairwise(ends)]
    for wall, record in zip(walls, result.trials, strict=True):
        print(f"trial {record.number}: {wall:.2f} s, {record.seconds or 0:.2f} s in {len(record.by_epoch)} epochs")
    return [wall - (record.seconds or 0) for wall, record in zip(walls, result.trials, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = subset(PreparedDataset(arguments.dataset), Path(folder) / "dataset")
        beyond = measure(small, Path(folder) / "run", arguments.model, arguments.trials, arguments.epochs)
    later = beyond[1:]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {arguments.model}")
    print(f"beyond the loop: first trial {beyond[0]:.2f} s; then, of {len(later)} trials,", end=" ")
    print(f"median {statistics.median(later):.2f} s, max {max(later):.2f} s")


if __name__ == "__main__":
    main()
