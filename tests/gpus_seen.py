"""Train, search and score on two logical GPUs, and print which GPUs each of Ray's processes saw, as JSON.

    python tests/gpus_seen.py DATASET FOLDER [joined]

fer_ray starts Ray; with ``joined`` this script starts Ray first, as a notebook may. No machine needs a GPU: the script
looks at CUDA_VISIBLE_DEVICES.
"""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from ray import cloudpickle
from ray.train.torch import TorchConfig, TorchTrainer
from scripted_search import cost_nothing, made_snapshot

from fer_ray.cluster import connect
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.config.tune_options import TuneOptions
from fer_ray.score import score
from fer_ray.scoring import on_ray
from fer_ray.search.on_ray import preflight, run_trials, trial
from fer_ray.search.request import SearchRequest, check_request
from fer_ray.train import train
from fer_ray.training.on_ray import train_workers
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Report
from fer_ray.tune import search

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # so that the replacements below reach workers

DATASET, FOLDER = map(Path, sys.argv[1:3])
SPACE = """
model: {name: lenet}
training: {epochs: 1}
search: {optimizer.learning_rate: {log_uniform: [0.001, 0.1]}}
"""
Trainer = functools.partial(TorchTrainer, torch_config=TorchConfig(backend="gloo"))  # NCCL needs real GPUs


def note(what: str) -> None:
    """Write what this process sees into a file."""
    group = os.environ.get("MASTER_PORT", "") * dist.is_initialized()  # the same for the ranks that train together
    seen = {"what": what, "sees": os.environ.get("CUDA_VISIBLE_DEVICES"), "has": ray.get_gpu_ids(), "group": group}
    with (FOLDER / f"{os.getpid()}.seen").open("a") as file:
        file.write(json.dumps(seen) + "\n")


def spy_worker(rank: int, **options: Any) -> None:
    note("train")
    TRAIN_WORKER(rank, **options)


class SpyActor(on_ray._ScoringActor):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        note("score")


def spy_measure(request: SearchRequest, data: TrainingData, threads: int) -> Any:
    measured = MEASURE(request, data, threads)
    note("measure")
    return measured


def spy_on_workers(*arguments: Any) -> Any:
    note("trial's driver")
    train_workers.TorchTrainer = Trainer
    yield from ON_WORKERS(*arguments)


def spy_trial(params: dict[str, Any], **options: Any) -> None:
    trial.train_on_workers = spy_on_workers  # in the process of the trial
    trial.run_trial(params, **options)


def objective(config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
    note("worker of a trial" if dist.is_initialized() else "trial")
    metrics = {"epoch": 1.0, "validation_accuracy": 0.5, "validation_macro_f1": 0.5, "seconds": 1.0}
    report(metrics, made_snapshot(config, data, [metrics]))


MEASURE, ON_WORKERS, TRAIN_WORKER = preflight._measure, trial.train_on_workers, train_workers._train_worker


def seen_by(call: Callable[[], object]) -> list[dict[str, Any]]:
    """Call, and return what the processes that the call started have seen."""
    for file in FOLDER.glob("*.seen"):
        file.unlink()
    call()
    return [json.loads(line) for file in FOLDER.glob("*.seen") for line in file.read_text().splitlines()]


def run_search(name: str, measured: bool = False, **options: Any) -> None:
    asked = TuneOptions(DATASET, [FOLDER / "s.yaml"], FOLDER / name, 2, **options)
    measure = preflight.measure_costs if measured else cost_nothing
    search(check_request(asked), objective, measure)


def main() -> None:
    (FOLDER / "s.yaml").write_text(SPACE)
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
    if "joined" in sys.argv:
        ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=True, log_to_driver=False)
    else:
        connect.start_ray(num_cpus=4, num_gpus=2, include_dashboard=True)
    train_workers.TorchTrainer, train_workers._train_worker = Trainer, spy_worker  # type: ignore[misc]
    on_ray._ScoringActor, preflight._measure = SpyActor, spy_measure  # type: ignore[misc]
    run_trials.run_trial = spy_trial
    config = load_config(None, ["model.name=lenet", "training.epochs=1"])
    runs: dict[str, Callable[[], object]] = {
        "train": lambda: train(DATASET, config, FOLDER / "t1", workers=2),
        "train 3": lambda: train(DATASET, config, FOLDER / "t3", workers=3),
        "tune 0": lambda: run_search("s0", True, gpus_per_trial=0, max_concurrent=2),
        "tune 0.25": lambda: run_search("s025", True, gpus_per_trial=0.25, max_concurrent=2),
        "tune on workers": lambda: run_search("w2", workers_per_trial=2, max_concurrent=1),
        "score 1": lambda: score(None, [DATASET / "samples.png"], FOLDER / "l1", ray=True),
    }
    print(json.dumps({name: seen_by(run) for name, run in runs.items()}))
    ray.shutdown()


if __name__ == "__main__":
    main()
