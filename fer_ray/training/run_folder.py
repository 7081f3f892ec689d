"""The folder of a training run: ``config.yaml``, ``metrics.jsonl``, ``checkpoint/`` (best epoch), ``last/``."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from fer_ray.config.files import load_config, to_yaml
from fer_ray.config.schema import Config
from fer_ray.console.text import amount
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.inference.calibration import fit_temperature
from fer_ray.inference.checkpoint import (
    CheckpointInfo,
    copy_checkpoint,
    load_checkpoint,
    load_training_state,
    read_info,
    save_checkpoint,
)
from fer_ray.storage.json_files import read_json
from fer_ray.storage.local import make_folder, recover_folder, remove_leftovers, write_whole
from fer_ray.storage.output import Output
from fer_ray.training.profile import PROFILE_FILE, RunProfile, Stopwatch

CONFIG_FILE, METRICS_FILE = "config.yaml", "metrics.jsonl"

Metrics = dict[str, float]
"""An epoch's metrics by name, as in ``metrics.jsonl``."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run after an epoch. It is valid until the next epoch begins, and its copy for longer."""

    history: list[Metrics]
    stopwatch: Stopwatch
    _weights: dict[str, torch.Tensor]
    _info: CheckpointInfo  # but for the temperature
    _training: dict[str, Any]
    _circumstances: dict[str, Any]
    _validated: tuple[np.ndarray, np.ndarray]  # logits and labels of the validation split

    def save(self, folder: Path, resumable: bool = False) -> None:
        """Write a checkpoint folder with its fitted temperature. ``fit`` can resume from a ``resumable`` one."""
        info = self._info.model_copy(update={"temperature": fit_temperature(*self._validated)})
        save_checkpoint(folder, self._weights, info, self._training if resumable else None)

    def copy(self) -> "Snapshot":
        """Return a copy on the CPU."""
        weights, training = _on_cpu(self._weights), _on_cpu(self._training)
        return replace(self, stopwatch=self.stopwatch.copy(), _weights=weights, _training=training)

    def profile(self) -> RunProfile:
        """Return the run's profile so far."""
        return RunProfile(seconds=dict(self.stopwatch.seconds), **self._circumstances)


Report = Callable[[Metrics, Snapshot], None]


def _on_cpu(state: Any) -> Any:
    """Copy the tensors in nested dicts and lists to the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


class BackgroundReport:
    """Records epochs in a thread, while training continues. A ``Report`` and a context manager.

    It starts to write every ``SECONDS`` at most, and when it is idle. Of the epochs that end meanwhile, it writes only
    the best one and the last one; at the latest on exit, which waits for it. An error is raised at a later epoch or on
    exit.
    """

    SECONDS = 2.0

    def __init__(self, run: "RunFolder"):
        self._run, self._pool = run, ThreadPoolExecutor(1, "report")
        self._busy: Future[None] | None = None
        self._waiting: list[tuple[Metrics, Snapshot]] = []
        self._started = -math.inf

    def __call__(self, metrics: Metrics, snapshot: Snapshot) -> None:
        with snapshot.stopwatch.span("checkpoint"):
            best = best_epoch(snapshot.history, self._run.metric)["epoch"]
            self._waiting = [one for one in self._waiting if one[0]["epoch"] == best] + [(metrics, snapshot.copy())]
            is_busy = self._busy is not None and not self._busy.done()
            if not is_busy and time.monotonic() - self._started >= self.SECONDS:
                self._start()

    def _start(self) -> None:
        self._finish()
        self._started = time.monotonic()
        self._busy, self._waiting = self._pool.submit(self._write, self._waiting), []

    def _write(self, epochs: list[tuple[Metrics, Snapshot]]) -> None:
        for metrics, snapshot in epochs:
            self._run.record(metrics, snapshot)

    def _finish(self) -> None:
        busy, self._busy = self._busy, None
        if busy:
            busy.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        with self._pool:
            if self._waiting:
                self._start()
            self._finish()


class RunFolder:
    """Writes and reads a run's folder. Each file and folder is replaced atomically.

    ``last/`` is written first. After a kill ``catch_up`` brings the other files up to date with it.

    Checkpoint folders are ``best``, of the epoch that maximises ``metric``, without training state, and ``last``, from
    which ``fit`` resumes. Another process that uses a URL calls ``output.fetch`` first.
    """

    def __init__(self, output: Output | Path, metric: str = "validation_accuracy"):
        self.output, self.metric = Output.at(output), metric

    @property
    def path(self) -> Path:
        return self.output.path

    @property
    def best(self) -> Path:
        return self.path / "checkpoint"

    @property
    def last(self) -> Path:
        return self.path / "last"

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG_FILE

    def begin(self, config: Config) -> None:
        """Make the folder and write the configuration."""
        make_folder(self.path)
        self._write(CONFIG_FILE, to_yaml(config))

    def saved_config(self) -> Config:
        """Read the configuration of a run to resume; ``UsageError`` if the folder has none or an invalid one."""
        if not self.output.exists(CONFIG_FILE):
            raise UsageError(
                f"{self.output.path_or_url}: not a training run, {CONFIG_FILE} is missing. Name the folder of a run to"
                " resume."
            )
        return load_config(self.output.file(CONFIG_FILE))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a write error, such as a full disk, into a ``FerRayError`` that says which checkpoints are intact."""
        try:
            yield
        except (OSError, UsageError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError) or isinstance(cause, ConnectionError):  # not a disk's error
                raise
            file = cause.filename2 or cause.filename or self.path  # a copy's error names source and destination
            raise FerRayError(f"{file}: can't be written: {cause.strerror or cause}. {self.what_is_kept()}") from error

    def what_is_kept(self) -> str:
        """Return which checkpoints are intact after a failure, and how to resume."""
        kept = [
            f"{self.output.file(folder.name)} (epoch {read_info(folder).epoch})"
            for folder in (self.last, self.best)
            if folder.is_dir()
        ]
        if not kept:
            return "No epoch was finished, so there is nothing to resume. Fix the cause and start again."
        return f"Intact: {' and '.join(kept)}. Fix the cause and continue with --resume."

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        """Write the state after an epoch; a ``Report`` for ``fit``.

        Wherever a kill interrupts it, a resumed run lists each epoch once and keeps the best one. ``FerRayError`` if a
        file can't be written: the previous epoch's state is kept.
        """
        with self.writing():
            with snapshot.stopwatch.span("checkpoint"):
                snapshot.save(self.last, resumable=True)
                self.output.save(self.last.name)
                self._update(snapshot.history)
            self._write(PROFILE_FILE, snapshot.profile().model_dump_json(indent=2) + "\n")

    def catch_up(self) -> list[Metrics]:
        """Finish a ``record`` that a kill interrupted, and return the metrics of each epoch so far.

        ``DataError`` if ``last/`` is damaged, or missing although there are epochs; ``FerRayError`` if writing fails.
        """
        remove_leftovers(self.best)
        remove_leftovers(self.last)
        if not self.last.is_dir():
            if done := len(self.history()):
                raise DataError(
                    f"{self.path}: has {amount(done, 'epoch')} but no {self.last.name}/ to resume from. Restore it or"
                    " train again in another folder."
                )
            return []
        history: list[Metrics] = load_training_state(self.last)["history"]
        load_checkpoint(self.last)  # a damaged one must not replace a whole best one
        with self.writing():
            self._update(history)
        return history

    def resumable(self) -> Path | None:
        """Return the folder to resume from, or None before the first epoch is finished."""
        recover_folder(self.last)
        return self.last if self.last.is_dir() else None

    def _update(self, history: Sequence[Metrics]) -> None:
        """Bring the best epoch and the metrics up to date with ``last``."""
        if best_epoch(history, self.metric)["epoch"] == history[-1]["epoch"]:
            copy_checkpoint(self.last, self.best)
            self.output.save(self.best.name)
        self._write(METRICS_FILE, "".join(json.dumps(line) + "\n" for line in history))

    def _write(self, name: str, content: str) -> None:
        write_whole(self.path / name, content)
        self.output.save(name)

    def history(self) -> list[Metrics]:
        """Read ``metrics.jsonl``, an entry an epoch, perhaps none; ``DataError`` if a line is not JSON."""
        file = self.path / METRICS_FILE
        try:
            lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise DataError(f"{file}: not JSON: {error.msg}: {error.doc[:80]}. Restore it or train again.") from error

    def profile(self) -> RunProfile | None:
        """Read ``profile.json``, None if there is none; ``DataError`` if it is damaged or of another version."""
        file = self.path / PROFILE_FILE
        return read_json(RunProfile, file, "Remove it; the run is usable without it.") if file.is_file() else None


def best_epoch(history: Sequence[Metrics], metric: str = "validation_accuracy") -> Metrics:
    """Return the metrics of the best epoch: the first with the highest value of a metric."""
    return max(history, key=lambda line: line[metric])


def describe_epoch(metrics: Metrics) -> str:
    """Return an epoch's metrics as one line of text."""
    return (
        f"epoch {metrics['epoch']:.0f}: loss {metrics['train_loss']:.3f}, validation loss"
        f" {metrics['validation_loss']:.3f}, accuracy {metrics['validation_accuracy']:.2%}, macro-F1"
        f" {metrics['validation_macro_f1']:.3f}, {metrics['images_per_s']:,.0f} images/s"
    )
