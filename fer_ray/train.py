"""Train one network on a prepared dataset, in this process or on several Ray Train workers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cluster.failures import advice
from fer_ray.cluster.memory import memory_errors, parse_bytes
from fer_ray.cluster.resources import WHY_ONE_GPU
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount, duration
from fer_ray.dataset.placement import Placement
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import read_info
from fer_ray.inference.device import memory_left
from fer_ray.models import can_grow
from fer_ray.reporting.curves import save_curves
from fer_ray.storage.outputs import claimed
from fer_ray.storage.provenance import record_start
from fer_ray.training.loop import fit
from fer_ray.training.metrics import Metrics
from fer_ray.training.profile import RunProfile, bottleneck
from fer_ray.training.requirements import require_trainable
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import RunFolder, Snapshot, best_epoch, describe_epoch


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        checkpoint: the path or URL of the checkpoint with the best validation accuracy.
        best: the metrics of that epoch.
        history: the metrics of every epoch.
        profile: where the run's time went.
    """

    checkpoint: Path | str
    best: Metrics
    history: list[Metrics]
    profile: RunProfile | None


def train(
    dataset: Path | str,
    config: Config,
    output: Path | str,
    *,
    workers: int = 1,
    gpus_per_worker: float | None = None,
    data_memory: int | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a network and write the run's folder.

    Args:
        dataset: path or URL of a prepared dataset with a validation split.
        config: the training configuration.
        output: path or URL of the run's folder: absent or empty, or with ``resume`` that of an interrupted run.
        workers: 1 trains in this process, on its GPU if it has one. More workers train through Ray Train.
        gpus_per_worker: 0 or 1; then even one worker trains through Ray Train. None: 1 if the cluster has as many GPUs
            as workers, else 0.
        data_memory: bytes that the rows may take on a machine, over all its workers. A split that doesn't fit is
            streamed from disk. None: half of the available memory.
        resume: continue after the last finished epoch.

    Raises:
        UsageError: the configuration or a request is wrong, or the output folder is in use or in the dataset.
        DataError: the dataset can't be read, or is not the one that the interrupted run used.
        FerRayError: a file can't be written, or workers died more often than ``training.max_failures``. The last
            finished epoch is kept.
    """
    if gpus_per_worker not in (None, 0, 1):
        raise UsageError(f"--gpus-per-worker {gpus_per_worker:g}: must be 0 or 1. {WHY_ONE_GPU}")
    data = PreparedDataset(dataset)
    data.check_trainable()
    require_trainable(config, data.info, data.labelled("train"), workers, resume)
    with claimed(output, resume, [dataset]) as dest:
        run = RunFolder(dest)
        if resume:
            _check_same_run(run, config, data)
        with run.owned(resume), run.writing():
            run.begin(config)
            record_start(run.path)
            dest.save()
            _train(config, data, run, workers, gpus_per_worker, data_memory)
        history = run.history()
        return TrainResult(dest.file(run.best.name), best_epoch(history), history, run.profile())


def _train(
    config: Config,
    data: PreparedDataset,
    run: RunFolder,
    workers: int,
    gpus_per_worker: float | None,
    memory: int | None,
) -> None:
    run.catch_up()
    rows = data.labelled("train")
    try:
        with ProgressBar("training", rows * config.training.epochs, start=rows * len(run.history())) as bar:
            if workers == 1 and gpus_per_worker is None:
                _train_here(config, Placement(data, 1, memory or min(memory_left()) // 2), run, bar)
            else:
                from fer_ray.training.on_ray.train_workers import train_on_ray  # one process trains without Ray

                train_on_ray(config, data, run, bar, workers, gpus_per_worker, memory)
    finally:
        if run.history():
            with run.writing():
                save_curves(run.history(), run.curves_file)
                run.output.save()


def _check_same_run(run: RunFolder, config: Config, data: PreparedDataset) -> None:
    if load_config(run.saved_config_file()) != config:
        raise UsageError(
            f"{run.path}: trained with another configuration, see {run.config_file}. Resume with that one."
        )
    last = run.resumable()
    if last is None and (done := len(run.history())):
        raise DataError(
            f"{run.path}: has {amount(done, 'epoch')} but no {run.last.name}/ to resume from. Restore that folder, or"
            " train again in another one."
        )
    if last is not None and read_info(last).dataset_fingerprint != data.info.fingerprint:
        raise DataError(
            f"{data.path}: not the dataset that {run.path} was trained on. Resume with that dataset, or train again in"
            " another folder."
        )


def _train_here(config: Config, placement: Placement, run: RunFolder, bar: ProgressBar) -> None:
    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        run.record(metrics, snapshot)
        say(describe_epoch(metrics))

    placement.require_room(config.training.batch_size)
    say(str(placement))
    with memory_errors(advice(config.training)):
        rows = TrainingData(placement.load("train", 0), placement.load("validation", 0), placement.dataset.info)
        fit(config, rows, report, bar.advance, run.resumable())


def command(
    dataset: Annotated[str, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    output: Annotated[str, typer.Option(help="Folder of the run: a new one, or with --resume an interrupted run.")],
    config: Annotated[str | None, typer.Option(help="YAML configuration. Default: the defaults of `fast`.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: path.to.field=value.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together. 2 or more use Ray Train.")] = 1,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            help="GPUs of each worker, 0 or 1. Default: 1 if the cluster has as many GPUs as workers, else 0."
        ),
    ] = None,
    data_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory for the rows on a machine, such as 2GiB. A split that doesn't fit is streamed from disk."
            " Default: half of the available memory."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")] = False,
) -> None:
    """Train one network on a prepared dataset and keep its best checkpoint."""
    if resume and config is None and not set_:
        with claimed(output, resume) as dest:
            settings = load_config(RunFolder(dest).saved_config_file())
    else:
        settings = load_config(config, set_ or [])
    result = train(
        dataset,
        settings,
        output,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        data_memory=None if data_memory is None else parse_bytes(data_memory),
        resume=resume,
    )
    seconds = sum(line["seconds"] for line in result.history)
    print(f"best {describe_epoch(result.best)}")
    if (done := len(result.history)) < settings.training.epochs:
        patience = amount(settings.training.patience or 0, "epoch")
        print(f"stopped early: no improvement for {patience} (training.patience)")
    print(f"{amount(done, 'epoch')} in {duration(seconds)}; checkpoint: {result.checkpoint}")
    if result.profile:
        print(bottleneck(result.profile, can_grow(settings)))


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["train", *sys.argv[1:]])
