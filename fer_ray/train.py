"""Train one network on a prepared dataset, in this process or on several Ray Train workers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cluster.failures import advice
from fer_ray.cluster.memory import available_memory, memory_errors
from fer_ray.cluster.resources import WHY_ONE_GPU
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount, duration
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import read_info
from fer_ray.models import can_grow
from fer_ray.reporting.curves import save_curves
from fer_ray.storage.outputs import claimed
from fer_ray.storage.provenance import record_start
from fer_ray.training.loop import fit
from fer_ray.training.metrics import Metrics
from fer_ray.training.profile import RunProfile, bottleneck
from fer_ray.training.requirements import require_trainable
from fer_ray.training.rows import TrainingData, fitting_splits
from fer_ray.training.run_folder import RunFolder, Snapshot, best_epoch, describe_epoch


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        checkpoint: the folder, or the URL, of the epoch with the best validation accuracy.
        best: the metrics of that epoch.
        history: the metrics of every epoch.
        profile: where the time went.
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
    resume: bool = False,
) -> TrainResult:
    """Train a network and write the run's folder.

    Args:
        dataset: what ``prepare`` wrote, by path or URL, with a validation split.
        config: the training configuration.
        output: the run's folder, by path or URL; new or empty, or an interrupted run's with ``resume``.
        workers: 1 trains in this process, on its GPU where there is one; more train through Ray Train.
        gpus_per_worker: of Ray Train's, 0 or 1, with which one worker too goes through Ray Train. None for 1 where the
            cluster has as many GPUs as there are workers, else 0.
        resume: go on after the last finished epoch.

    Raises:
        UsageError: a wrong configuration or request, or an output folder in use or in the dataset.
        DataError: the dataset can't be read, or isn't the one that the interrupted run used.
        FerRayError: the disk refuses what is to be written, or workers died more often than
            ``training.max_failures``; the last finished epoch is kept.
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
            _train(config, data, run, workers, gpus_per_worker)
        history = run.history()
        return TrainResult(dest.file(run.best.name), best_epoch(history), history, run.profile())


def _train(
    config: Config,
    data: PreparedDataset,
    run: RunFolder,
    workers: int,
    gpus_per_worker: float | None,
) -> None:
    run.catch_up()
    rows = data.labelled("train")
    try:
        with ProgressBar("training", rows * config.training.epochs, start=rows * len(run.history())) as bar:
            if workers == 1 and gpus_per_worker is None:
                _train_here(config, data, run, bar)
            else:
                from fer_ray.training.on_ray.train_workers import train_on_ray  # a run in this process does without Ray

                train_on_ray(config, data, run, bar, workers, gpus_per_worker)
    finally:
        if run.history():
            with run.writing():
                save_curves(run.history(), run.curves_file)
                run.output.save()


def _check_same_run(run: RunFolder, config: Config, data: PreparedDataset) -> None:
    if load_config(run.former_config_file()) != config:
        raise UsageError(
            f"{run.path}: was trained with another configuration, see {run.config_file}. Resume with that."
        )
    last = run.resumable()
    if last is None and (done := len(run.history())):
        raise DataError(
            f"{run.path}: has {amount(done, 'epoch')} but no {run.last.name}/ to go on from. Restore that, or start"
            " anew in another folder."
        )
    if last is not None and read_info(last).dataset_fingerprint != data.info.fingerprint:
        raise DataError(
            f"{data.path}: not the dataset that {run.path} was trained on. Resume with that, or start anew."
        )


def _train_here(config: Config, data: PreparedDataset, run: RunFolder, bar: ProgressBar) -> None:
    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        run.record(metrics, snapshot)
        say(describe_epoch(metrics))

    in_memory, line = fitting_splits(data, available_memory() // 2)
    say(line)
    with memory_errors(advice(config.training)):
        fit(config, TrainingData.load(data, in_memory), report, bar.advance, run.resumable())


def command(
    dataset: Annotated[str, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    output: Annotated[str, typer.Option(help="Folder of the run; new, or an interrupted one with --resume.")],
    config: Annotated[str | None, typer.Option(help="YAML configuration; without it the defaults of `fast`.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: path.to.field=value.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together; above 1 through Ray Train.")] = 1,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            help="0 or 1, of Ray Train's; default 1 where the cluster has as many GPUs as there are workers, else 0."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last finished epoch.")] = False,
) -> None:
    """Train one network on a prepared dataset and keep its best checkpoint."""
    if resume and config is None and not set_:
        with claimed(output, resume) as dest:
            settings = load_config(RunFolder(dest).former_config_file())
    else:
        settings = load_config(config, set_ or [])
    result = train(
        dataset,
        settings,
        output,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        resume=resume,
    )
    seconds = sum(line["seconds"] for line in result.history)
    print(f"best {describe_epoch(result.best)}")
    if (done := len(result.history)) < settings.training.epochs:
        patience = amount(settings.training.patience or 0, "epoch")
        print(f"stopped early: no better for {patience} (training.patience), {settings.training.epochs} were allowed")
    print(f"{amount(done, 'epoch')} in {duration(seconds)}; checkpoint: {result.checkpoint}")
    if result.profile:
        print(bottleneck(result.profile, can_grow(settings)))


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["train", *sys.argv[1:]])
