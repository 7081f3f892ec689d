"""Train one network on a prepared dataset, in this process or on several Ray Train workers."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["train", *sys.argv[1:]])

from dataclasses import dataclass
from pathlib import Path

from fer_ray.cluster.failures import advice
from fer_ray.cluster.memory import available_memory, memory_errors
from fer_ray.config.options import TrainOptions
from fer_ray.config.schema import Config
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount, duration
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import read_info
from fer_ray.inference.device import pick_device
from fer_ray.models import can_grow
from fer_ray.reporting.curves import save_curves
from fer_ray.storage.output import Output, open_output
from fer_ray.storage.provenance import record_start
from fer_ray.training.loop import fit
from fer_ray.training.profile import RunProfile, bottleneck
from fer_ray.training.requirements import batch_note, training_problems
from fer_ray.training.rows import TrainingData, fitting_splits
from fer_ray.training.run_folder import BackgroundReport, Metrics, RunFolder, Snapshot, best_epoch, describe_epoch

CURVES_FILE = "curves.png"


@dataclass(frozen=True)
class TrainResult:
    """A finished run, with the metrics of the best epoch and of all epochs."""

    checkpoint: Path | str  # of the epoch with the best validation accuracy
    best: Metrics
    history: list[Metrics]
    config: Config
    profile: RunProfile | None


@stage(TrainOptions)
def train(options: TrainOptions) -> TrainResult:
    """Train a network and write the run's folder.

    Raises:
        UsageError: the configuration or a request is wrong, or the output folder is in use or in the dataset.
        DataError: the dataset can't be read, or is not the one that the interrupted run used.
        FerRayError: a file can't be written, or workers died more often than ``training.max_failures``. The last
            finished epoch is kept.
    """
    workers, gpus_per_worker, resume = options.workers, options.gpus_per_worker, options.resume
    saved = RunFolder(Output.at(options.output)).saved_config() if resume else None
    config = options.settings or saved
    assert config is not None, "without --resume there are settings"
    if saved not in (None, config):
        raise UsageError(f"{options.output}: trained with another configuration, see config.yaml. Resume with that.")
    data = PreparedDataset(options.dataset)
    data.check_trainable()
    here = workers == 1 and gpus_per_worker is None
    # fit reads weights and teachers itself; several workers are checked before they start.
    if problems := training_problems(config, data.info, workers, read=not (here or resume)):
        raise UsageError(problems)
    with open_output(options.output, resume, [options.dataset], lambda new: RunFolder(new).resumable()) as dest:
        dest.fetch()
        run = RunFolder(dest)
        last = run.resumable()
        if last is not None and read_info(last).dataset_fingerprint != data.info.fingerprint:
            raise DataError(
                f"{data.path_or_url}: not the dataset that {dest.path_or_url} was trained on. Resume with that dataset,"
                " or train again in another folder."
            )
        with run.writing():
            run.begin(config)
            record_start(dest)
            rows, done = data.labelled("train"), len(run.catch_up())
            try:
                with ProgressBar("training", rows * config.training.epochs, start=rows * done) as bar:
                    if here:
                        _train_here(config, data, run, bar)
                    else:
                        from fer_ray.training.on_ray.train_workers import train_on_ray  # one process needs no Ray

                        train_on_ray(config, data, run, bar, workers, gpus_per_worker)
            finally:
                if history := run.history():
                    save_curves(history, run.path / CURVES_FILE)
                    dest.save(CURVES_FILE)
        return TrainResult(dest.file(run.best.name), best_epoch(history), history, config, run.profile())


def _train_here(config: Config, data: PreparedDataset, run: RunFolder, bar: ProgressBar) -> None:
    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        record(metrics, snapshot)
        say(describe_epoch(metrics))

    in_memory, line = fitting_splits(data, available_memory() // 2)
    say(line)
    if note := batch_note(config, 1, pick_device().type == "cuda"):
        say(note)
    with memory_errors(advice(config.training)), BackgroundReport(run) as record:
        fit(config, TrainingData.load(data, in_memory), report, bar.advance, run.resumable())


def command(options: TrainOptions) -> None:
    """Train, and print the result."""
    result = train.run(options)
    seconds = sum(line["seconds"] for line in result.history)
    print(f"best {describe_epoch(result.best)}")
    if (done := len(result.history)) < result.config.training.epochs:
        patience = amount(result.config.training.patience or 0, "epoch")
        print(f"stopped early: no improvement for {patience} (training.patience)")
    print(f"{amount(done, 'epoch')} in {duration(seconds)}; checkpoint: {result.checkpoint}")
    if result.profile:
        print(bottleneck(result.profile, can_grow(result.config)))
