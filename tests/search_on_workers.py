"""Search with trials of two workers, in a process and a cluster of its own; print what it found and what it left there.

    python tests/search_on_workers.py DATASET FOLDER

The trials learn nothing: the accuracy after each epoch is the dropout. The third one runs out of memory; the fourth one
presses Ctrl-C and hangs.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import ray
import torch.distributed as dist
from ray.util import placement_group_table
from ray.util.state import list_actors
from scripted_search import cost_nothing, made_snapshot

from fer_ray.cluster import connect
from fer_ray.config.schema import Config
from fer_ray.config.tune_options import TuneOptions
from fer_ray.search.request import check_request
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Report
from fer_ray.tune import search

DATASET, FOLDER = map(Path, sys.argv[1:])
SPACE = """
model: {name: cnn3, dropout: 0.5}
schedule: {first_size: 1}
training: {epochs: 9}
search: {model.dropout: {uniform: [0.1, 0.5]}}
"""
PATIENCE_S = 30
OF_THE_CLUSTER = ("_AutoscalingCoordinatorActor", "_StatsActor")
"""Actors that Ray starts once and keeps."""


def by_dropout(config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
    assert dist.get_world_size() == 2 and len(data.train) == 285 and len(data.validation) in (35, 36)
    calls = FOLDER / "calls"
    if dist.get_rank() == 0:
        (calls / str(len(list(calls.iterdir())))).touch()
        if (calls / "3").exists():
            os.kill(int((FOLDER / "driver").read_text()), signal.SIGINT)
            time.sleep(600)
        if (calls / "2").exists():
            raise MemoryError("Unable to allocate 3.2 GiB")
    accuracy, history = config.model.dropout, list[dict[str, float]]()
    for epoch in range(1, config.training.epochs + 1):
        metrics = {"epoch": float(epoch), "validation_accuracy": accuracy, "validation_macro_f1": accuracy}
        history.append(metrics | {"seconds": 1.0})
        report(history[-1], made_snapshot(config, data, history))  # type: ignore[arg-type]


def left_over() -> list[str]:
    groups = [f"placement group {id}" for id, group in placement_group_table().items() if group["state"] != "REMOVED"]
    listed = list_actors(address=ray.get_runtime_context().gcs_address)  # other clusters may run on this machine
    actors = [actor for actor in listed if actor.state != "DEAD" and actor.class_name not in OF_THE_CLUSTER]
    return groups + [f"{actor.class_name} {actor.state}" for actor in actors]


def main() -> None:
    (FOLDER / "calls").mkdir()
    (FOLDER / "s.yaml").write_text(SPACE)
    connect.start_ray(num_cpus=2, num_gpus=0, include_dashboard=True)
    request = check_request(TuneOptions(DATASET, [FOLDER / "s.yaml"], FOLDER / "run", 5, workers_per_trial=2))
    (FOLDER / "driver").write_text(str(os.getpid()))
    with contextlib.suppress(KeyboardInterrupt):
        search(request, by_dropout, cost_nothing)
    ended = time.monotonic()
    while (left := left_over()) and time.monotonic() < ended + PATIENCE_S:
        time.sleep(0.2)
    columns = ["state", "error", "epochs", "value", "model.dropout"]
    trials = pq.read_table(FOLDER / "run" / "trials.parquet", columns=columns).to_pylist()
    print(json.dumps({"trials": trials, "left": left, "seconds_until_gone": time.monotonic() - ended}))
    ray.shutdown()


if __name__ == "__main__":
    main()
