"""What a search of many trials costs: the driver's memory and the time of a trial, as the study grows.

    PYTHONPATH=tests python tests/benchmarks/search_many.py --dataset DATASET --trials 500

The trials train nothing: each reports one epoch with an accuracy that follows from its parameters, and an untrained
network. After every 50 trials the driver's memory (USS: what no other process shares) and the time of a trial since the
previous line are printed.
"""

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
from common import machine, options
from scripted_search import cost_nothing, made_snapshot

from fer_ray.config.schema import Config
from fer_ray.config.tune_options import TuneOptions
from fer_ray.search.request import check_request
from fer_ray.training.rows import TrainingData
from fer_ray.tune import search

EVERY = 50
SPACE = """
model: {name: lenet, dropout: 0.5}
training: {epochs: 1}
search:
  model.dropout: {uniform: [0.0, 0.7]}
  optimizer.learning_rate: {log_uniform: [0.01, 0.5]}
  loss.class_weight_power: {uniform: [0.0, 1.0]}
  optimizer.weight_decay: {log_uniform: [1.0e-6, 1.0e-2]}
"""


def train_nothing(config: Config, data: TrainingData, report: Callable[..., None], *, resume_from: Path | None) -> None:
    """Report an epoch at once."""
    accuracy = 1 - abs(config.model.dropout - 0.3) - abs(config.loss.class_weight_power - 0.5) / 2
    metrics = {"epoch": 1.0, "seconds": 0.0, "validation_accuracy": accuracy, "validation_macro_f1": accuracy}
    report(metrics, made_snapshot(config, data, [metrics]))


def watch(study: Path, over: threading.Event) -> None:
    """Print a line after every 50 finished trials, until the search is over."""
    printed, began = 0, time.perf_counter()
    while not over.wait(0.2):
        if not study.is_file():
            continue
        with closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True)) as database:
            query = "SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL')"
            (finished,) = database.execute(query).fetchone()
        if finished - printed >= EVERY:
            now, memory = time.perf_counter(), psutil.Process().memory_full_info().uss / 2**20
            each = 1000 * (now - began) / (finished - printed)
            print(f"{finished:4} trials: {memory:6.1f} MiB; a trial {each:6.1f} ms", flush=True)
            printed, began = finished, now


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--sampler", default="tpe")
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.sampler}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        space, run, over = Path(folder) / "space.yaml", Path(folder) / "run", threading.Event()
        space.write_text(SPACE)
        chosen = {"sampler": arguments.sampler, "scheduler": "none"}
        request = check_request(TuneOptions(arguments.dataset, [space], run, arguments.trials, **chosen))
        watcher = threading.Thread(target=watch, args=(run / "study.db", over))
        watcher.start()
        began = time.perf_counter()
        try:
            search(request, train_nothing, cost_nothing)
        finally:
            over.set()
            watcher.join()
        print(f"{arguments.trials} trials in {time.perf_counter() - began:.0f} s, start-up included")


if __name__ == "__main__":
    main()
