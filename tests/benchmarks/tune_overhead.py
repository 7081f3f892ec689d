"""What a search costs a trial beyond its training loop, and how busy it keeps the CPUs.

    python tests/benchmarks/tune_overhead.py --dataset DATASET --model cnn3 --trials 20

Searches a 4,000-image subset with as many short trials at once as there are CPUs. A trial's cost runs from the last
epoch of the trial before it in the same process to its own last epoch, less what the loop itself says of its epochs
(training and validation): so choosing parameters, writing the study, starting, building the network and keeping
checkpoints are in it. The first trial of each process, which waits for Ray and for PyTorch to be imported, is left out.

The CPUs are busy with training as far as their trials are in an epoch. That share is taken from the moment at which
every process has begun its first epoch to the last epoch of the last trial, and to the beginning of the last trial,
after which a CPU that is done with its own has nothing left to do.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from epoch_journal import Journal, all_begun, beyond_the_loop, busy_share
from ray import cloudpickle

from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.options import TuneOptions
from fer_ray.search.request import check_request
from fer_ray.tune import search

SPACES = Path(__file__).parents[2] / "search_spaces"
ROWS = {"train": 4000, "validation": 1000}
cloudpickle.register_pickle_by_value(sys.modules["epoch_journal"])  # workers don't find the folder of the benchmarks


def subset(dataset: PreparedDataset, folder: Path) -> Path:
    """Write some rows of a prepared dataset, drawn with a fixed seed, as one of its own."""
    generator = np.random.default_rng(0)
    info = dataset.info.model_copy(deep=True)
    info.splits = {name: split for name, split in info.splits.items() if name in ROWS}
    for name, split in info.splits.items():
        rows = generator.permutation(split.rows)[: ROWS[name]]
        table = dataset.table(name).take(rows)
        counts = np.bincount(table["label"].to_numpy(), minlength=len(info.label_names))
        split.rows, split.labels = len(table), dict(zip(info.label_names, counts.tolist(), strict=True))
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "part-0.parquet")
    (folder / DATASET_FILE).write_text(info.model_dump_json(), encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = subset(PreparedDataset(arguments.dataset), Path(folder) / "dataset")
        space, overrides = SPACES / f"{arguments.model}.yaml", [f"training.epochs={arguments.epochs}"]
        request = check_request(
            TuneOptions(small, [space], Path(folder) / "run", arguments.trials, overrides=overrides)
        )
        journal = Journal(Path(folder) / "epochs.jsonl")
        search(request, journal)
        trials = journal.read()
    beyond, lengths = list(beyond_the_loop(trials)), [sum(e.seconds for e in entries) for entries in trials.values()]
    at_once = len({entries[0].process for entries in trials.values()})
    started = all_begun(trials, at_once)
    print(f"{platform.processor() or platform.machine()}, {at_once} trials at once, {arguments.model}")
    print(f"{len(trials)} trials, median {statistics.median(lengths):.2f} s in their epochs")
    print(f"beyond them, of {len(beyond)}: median {statistics.median(beyond):.2f} s, max {max(beyond):.2f} s")
    last_began = max(entries[0].moment for entries in trials.values())
    ended = max(entries[-1].moment for entries in trials.values())
    print(
        f"CPUs in epochs: {busy_share(trials, started, ended, at_once):.1%} to the end,"
        f" {busy_share(trials, started, last_began, at_once):.1%} while trials were left to start"
    )


if __name__ == "__main__":
    main()
