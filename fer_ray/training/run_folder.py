"""The folder of a training run: ``config.yaml``, ``metrics.jsonl``, ``checkpoint/`` (best), ``last/`` (to resume)."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fer_ray.config.files import to_yaml
from fer_ray.config.schema import Config
from fer_ray.console.messages import as_shown
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.inference.checkpoint import (
    CheckpointInfo,
    copy_checkpoint,
    load_checkpoint,
    load_training_state,
    read_info,
    save_checkpoint,
)
from fer_ray.storage.json_files import read_json
from fer_ray.storage.local import make_folder, recover_folder, remove_folder, remove_leftovers, write_whole
from fer_ray.storage.outputs import Output
from fer_ray.training.metrics import Metrics
from fer_ray.training.profile import PROFILE_FILE, RunProfile, Stopwatch


@dataclass(frozen=True)
class Snapshot:
    """The state of a run after an epoch, valid until the next one begins; written only where somebody wants it.

    Attributes:
        is_best: no earlier epoch had this validation accuracy.
        history: the metrics of every epoch so far, this one last.
        stopwatch: of the run; writing the snapshot is a part for it to measure.
    """

    is_best: bool
    history: list[Metrics]
    stopwatch: Stopwatch
    _weights: dict[str, torch.Tensor]
    _info: CheckpointInfo
    _training: dict[str, Any]
    _circumstances: dict[str, Any]

    def save(self, folder: Path, resumable: bool = False) -> None:
        """Write a checkpoint folder, from which ``fit`` can go on where ``resumable``."""
        save_checkpoint(folder, self._weights, self._info, self._training if resumable else None)

    def profile(self) -> RunProfile:
        """Return where the time of the run went so far."""
        return RunProfile(seconds=dict(self.stopwatch.seconds), **self._circumstances)


Report = Callable[[Metrics, Snapshot], None]


class EpochCheckpoints:
    """Writes and reads both. ``last`` comes first and is the truth, from which ``catch_up`` makes ``best`` again.

    Args:
        output: in which both are; of a URL another process begins with its ``fetch``.
        best: the name of the best epoch's folder there.
        metric: by which an epoch is best; more is better.
    """

    def __init__(self, output: Output | Path, best: str, metric: str):
        self.output = Output.at(output)
        self._best, self._metric = best, metric

    @property
    def best(self) -> Path:
        """The best epoch's checkpoint, which only predicts."""
        return self.output.path / self._best

    @property
    def last(self) -> Path:
        """The last epoch's, from which ``fit`` goes on."""
        return self.output.path / "last"

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        """Write the state after an epoch; a ``Report`` for ``fit``.

        Raises:
            OSError, UsageError: the disk refuses; the state after the epoch before is whole.
        """
        snapshot.save(self.last, resumable=True)
        self._follow(snapshot.history)
        self.output.save()

    def catch_up(self) -> list[Metrics]:
        """Finish a ``record`` that a kill cut off, and return the metrics of each epoch so far.

        Raises:
            DataError: ``last`` is damaged.
            OSError, UsageError: the disk refuses.
        """
        remove_leftovers(self.best)
        remove_leftovers(self.last)
        if not self.last.is_dir():
            return []
        history: list[Metrics] = load_training_state(self.last)["history"]
        load_checkpoint(self.last)  # damaged, it must not take the place of a best one that is whole
        self._follow(history)
        return history

    def resumable(self) -> Path | None:
        """Return the folder to resume from, None before the first epoch was finished."""
        recover_folder(self.last)
        return self.last if self.last.is_dir() else None

    def _follow(self, history: Sequence[Metrics]) -> None:
        """Let the rest follow ``last``."""
        if best_epoch(history, self._metric)["epoch"] == history[-1]["epoch"]:
            copy_checkpoint(self.last, self.best)


def best_epoch(history: Sequence[Metrics], metric: str = "validation_accuracy") -> Metrics:
    """Return the metrics of the epoch whose checkpoint is kept: the first with the highest value of a metric."""
    return max(history, key=lambda line: line[metric])


CONFIG_FILE, METRICS_FILE, CURVES_FILE = "config.yaml", "metrics.jsonl", "curves.png"


class RunFolder(EpochCheckpoints):
    """Writes and reads a run. Each file and folder is replaced as a whole, so a kill leaves none torn.

    Args:
        output: the folder.
        metric: by which an epoch is the best one.
    """

    def __init__(self, output: Output | Path, metric: str = "validation_accuracy"):
        super().__init__(output, "checkpoint", metric)

    @property
    def path(self) -> Path:
        """Of the folder on this machine."""
        return self.output.path

    @property
    def config_file(self) -> Path:
        """The configuration that ``begin`` noted."""
        return self.path / CONFIG_FILE

    @property
    def curves_file(self) -> Path:
        """Loss and accuracy by epoch, drawn."""
        return self.path / CURVES_FILE

    def begin(self, config: Config) -> None:
        """Make the folder and note the configuration."""
        make_folder(self.path)
        write_whole(self.config_file, to_yaml(config))

    def saved_config_file(self) -> Path:
        """Return the file of the configuration that ``begin`` noted.

        Raises:
            UsageError: there is none.
        """
        if not self.config_file.is_file():
            raise UsageError(
                f"{self.path}: no training run to resume, it has no {CONFIG_FILE}. Name the folder of one."
            )
        return self.config_file

    @contextmanager
    def owned(self, resume: bool) -> Iterator[None]:
        """Keep other processes of this machine from the run, and leave nothing of one that fails in its first epoch.

        Args:
            resume: whether the run goes on; its folder stays then, whatever happens.

        Raises:
            UsageError: another process trains there.
        """
        with self.output.owned(resume, "another process is training here", lambda: self.resumable() is not None):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a disk's refusal, such as being full, into an error that says what is still whole.

        Raises:
            FerRayError: a file of the run can't be written.
        """
        try:
            yield
        except (OSError, UsageError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError) or isinstance(cause, ConnectionError):  # a disk breaks no connection
                raise
            file = cause.filename2 or cause.filename or self.path  # of a copy the second is what was written
            raise FerRayError(f"{file}: can't be written: {cause.strerror or cause}. {self.what_is_kept()}") from error

    def what_is_kept(self) -> str:
        """Say what is whole after a failure, and how to go on."""
        kept = [f"{folder} (epoch {read_info(folder).epoch})" for folder in (self.last, self.best) if folder.is_dir()]
        if not kept:
            return "No epoch was finished, so nothing is kept. Once that is mended, start again."
        return f"Kept whole: {as_shown(' and '.join(kept))}. Once that is mended, go on with --resume."

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        """Write the state after an epoch; a ``Report`` for ``fit``.

        Whatever the moment of a kill, a resumed run lists each epoch once and keeps the best one.

        Raises:
            FerRayError: the disk refuses; the state after the epoch before is whole.
        """
        with self.writing():
            with snapshot.stopwatch.span("checkpoint"):
                super().record(metrics, snapshot)
            write_whole(self.path / PROFILE_FILE, snapshot.profile().model_dump_json(indent=2) + "\n")
            self.output.save()

    def catch_up(self) -> list[Metrics]:
        """Finish a ``record`` that a kill cut off, and return the metrics of each epoch so far.

        Raises:
            DataError: ``last/`` is damaged.
            FerRayError: the disk refuses.
        """
        with self.writing():
            return super().catch_up()

    def _follow(self, history: Sequence[Metrics]) -> None:
        super()._follow(history)
        write_whole(self.path / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in history))

    def close(self) -> None:
        """Remove ``last/`` of a run that trained to its end, for a run that nobody will ask for more epochs."""
        remove_folder(self.last)
        self.output.save()

    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self.resumable() is None and bool(self.history())

    def history(self) -> list[Metrics]:
        """Read ``metrics.jsonl``, one entry an epoch; empty before the first.

        Raises:
            DataError: a line is no JSON.
        """
        file = self.path / METRICS_FILE
        if not file.is_file():
            return []
        history: list[Metrics] = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                history.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{file}: line {number}: {error.msg}. Restore it or train again.") from error
        return history

    def profile(self) -> RunProfile | None:
        """Read ``profile.json``; None where the folder has none.

        Raises:
            DataError: it isn't what this version of the program writes.
        """
        file = self.path / PROFILE_FILE
        return read_json(RunProfile, file, "Remove it; the run is usable without.") if file.is_file() else None


def describe_epoch(metrics: Metrics) -> str:
    """Return an epoch's metrics as one line."""
    return (
        f"epoch {metrics['epoch']:.0f}: loss {metrics['train_loss']:.3f}, validation loss"
        f" {metrics['validation_loss']:.3f}, accuracy {metrics['validation_accuracy']:.2%}, macro-F1"
        f" {metrics['validation_macro_f1']:.3f}, {metrics['images_per_s']:,.0f} images/s"
    )
