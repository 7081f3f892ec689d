"""The folder of a search: ``study.db``, ``trials.parquet``, ``best.yaml``, ``report.html`` and ``best/`` (weights)."""

import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.engine import URL

from fer_ray.config.files import to_yaml
from fer_ray.config.schema import Config
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import load_checkpoint
from fer_ray.search.request import SearchRequest
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord, error_line
from fer_ray.storage.local import recover_folder, whole_folder, write_whole
from fer_ray.storage.output import Output
from fer_ray.training.run_folder import RunFolder

STORAGE_VARIABLE = "FER_RAY_STORAGE"
"""Environment variable with the database URL of studies that aren't in ``study.db``."""
NAME_FILE, DATABASE_FILE = "study.json", "study.db"
_MEASURED = ("number", "state", "value", "accuracy", "macro_f1", "images_per_s")
_COURSE = ("best_epoch", "seconds", "started", "ended", "error", "interrupted", "continues")


class SearchFolder:
    """Writes and reads a search's folder. Each file and folder is replaced as a whole, so a kill leaves none torn.

    While a search runs, ``.trials/`` holds a training run for each trial, and ``.ray/`` holds Ray Tune's files.
    ``confirm/`` holds the runs with new seeds.
    """

    def __init__(self, output: Output | Path):
        self.output = Output.at(output)
        self.path = path = self.output.path
        self.best, self.best_config, self.table = path / "best", path / "best.yaml", path / "trials.parquet"
        self.trials, self.ray = self.output.within(".trials"), self.output.within(".ray")
        self.confirm = self.output.within("confirm")
        self.page, self.confirm_table, self._names = path / "report.html", path / "confirm.parquet", path / NAME_FILE
        self._taken: tuple[int, float | None] | None = None  # the trial in ``best``, and its best value

    def begin(self, study: str, confirmation: str | None = None) -> None:
        """Store the names of the study and of the study with new seeds."""
        write_whole(self._names, json.dumps({"study": study, "confirmation": confirmation}))

    def study_names(self) -> tuple[str, str | None]:
        """Return the names of the study and of that with new seeds, if there is one; ``DataError`` without a study."""
        try:
            names = json.loads(self._names.read_text(encoding="utf-8"))
            return names["study"], names["confirmation"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it names no study"
            raise DataError(
                f"{self.output.path_or_url}: no search, {self._names.name} can't be read: {reason}. Name the folder"
                " of a search, or start one in a new folder without --resume."
            ) from error

    @property
    def database(self) -> str:
        """URL of the study's own database, used if no other is named."""
        return URL.create("sqlite", database=str(self.path / DATABASE_FILE)).render_as_string(hide_password=False)

    def read_studies(self) -> tuple[Study, Study | None]:
        """Open the study and the study with new seeds, to read their results.

        ``DataError`` if the folder names no study, ``UsageError`` if neither it nor ``FER_RAY_STORAGE`` has a database.
        """
        storage = self.database
        if not (self.path / DATABASE_FILE).is_file() and not (storage := os.environ.get(STORAGE_VARIABLE, "")):
            raise UsageError(
                f"{self.output.path_or_url}: has no {DATABASE_FILE}. If its study is in another database, set"
                f" {STORAGE_VARIABLE} to the URL."
            )
        study, confirmation = self.study_names()
        return Study.read(study, storage), Study.read(confirmation, storage) if confirmation else None

    def save(self) -> None:
        """Send the files to the object store; folders are sent where they are written."""
        if self.output.is_remote:
            files = [path.name for path in self.path.iterdir() if path.is_file()]
            self.output.save(*(name for name in files if not name.startswith(".")))

    def keep_best(self, study: Study) -> None:
        """Copy the checkpoint of the best trial so far to ``best/``, and remove trials' folders that aren't in use."""
        recover_folder(self.best)
        best = study.best()
        if best is not None and self._taken != (best.number, best.value):
            self._take(best, RunFolder(self.trials.within(best.folder), study.strategy.first.metric))
        in_use = study.folders_in_use()
        for name in self.trials.folders():
            if name not in in_use:
                self.trials.within(name).clear()
        self.save()

    def _take(self, best: TrialRecord, run: RunFolder) -> None:
        run.output.fetch(run.best.name)
        if run.best.is_dir():
            with whole_folder(self.best, replace=True) as partial:
                shutil.copytree(run.best, partial, dirs_exist_ok=True)
            mark = f"# Trial {best.number}, {best.stopped}; no trial is complete.\n"
            write_whole(self.best_config, mark * bool(best.stopped) + to_yaml(best.config))
            self._taken = best.number, best.value
            self.output.save(self.best.name, self.best_config.name)
        run.output.forget()

    def finish(self, study: Study) -> TrialRecord:
        """Check that ``best/`` is the best trial's, remove what only a running search needs, and return that trial.

        ``UsageError`` if all trials failed or none had time for an epoch, ``DataError`` if its weights are missing.
        """
        best = study.best()
        if best is None:
            counted = [record for record in study.records() if not record.interrupted]
            errors = [record.error for record in counted if record.error]
            if not counted:
                raise UsageError(
                    f"{self.output.path_or_url}: no trial had time for an epoch. Resume with --resume and a"
                    " longer --time-budget."
                )
            raise UsageError(
                f"{self.output.path_or_url}: none of {amount(len(counted), 'trial')} is complete. The first error:"
                f" {error_line(errors[0]).rstrip('.')}. {self.page.name} lists all errors. Fix the cause, then resume"
                " with --resume and more --trials."
            )
        metric = study.strategy.first.metric
        value = load_checkpoint(self.best).info.metrics[metric] if self.best.is_dir() else None
        # A killed trial may have stored an epoch that it hasn't reported.
        if value is None or (value != best.value and not (best.interrupted and value > (best.value or 0.0))):
            raise DataError(
                f"{self.output.file('best')}: doesn't hold the weights of trial {best.number}, the best one with"
                f" {best.value}. Was something removed, or did the trial run on a node that doesn't share this disk?"
            )
        if not study.folders_in_use():
            self.trials.clear()
        self.ray.clear()
        return best


def open_study(
    request: SearchRequest,
    folder: SearchFolder,
    storage: str,
    first: Iterable[tuple[str, Config, dict[str, Any]]] | None = None,
) -> Study:
    """Create the study of a search, with ``first`` as in ``Study.create``, or open it to be resumed."""
    fingerprint = request.dataset.info.fingerprint
    if not request.options.resume:
        name = f"{folder.path.name}-{uuid.uuid4().hex[:8]}"  # which no other study in the database has
        study = Study.create(name, storage, request.spaces, fingerprint, request.strategy, first)
        folder.begin(name)
        return study
    name, _ = folder.study_names()
    study = Study.resume(name, storage, request.spaces, fingerprint, request.strategy)
    if interrupted := study.interrupt_running():
        say(f"{amount(interrupted, 'trial')} of the previous call, interrupted, will be resumed.")
    return study


def is_begun(output: Output) -> bool:
    """Return whether a trial of a search has ended, or has an epoch to resume from."""
    folder = SearchFolder(output)
    ended = folder.table.is_file() and pq.read_metadata(folder.table).num_rows > 0
    return ended or folder.best.is_dir() or bool(folder.trials.folders())


def write_table(study: Study, file: Path) -> None:
    """Write a study's finished trials as Parquet, one row a trial, with a column for each searched config path.

    ``value`` is the first objective; ``accuracy``, ``macro_f1`` and ``images_per_s`` are those of the best epoch by it.
    ``pareto`` marks trials that no other trial dominates. A config path is null if the trial didn't draw it.
    ``interrupted`` marks failed trials that another trial continues; its ``continues`` is their number.
    """
    front = set(study.pareto_front())
    paths = dict.fromkeys(path for space in study.spaces.values() for path in space.search)
    rows = []
    for record in study.records():
        row = {name: getattr(record, name) for name in _MEASURED}
        row |= {"pareto": record.number in front, "architecture": record.config.model.name, "space": record.space}
        drawn = {path: record.params.get(path) for path in paths}
        row |= {path: str(value) if isinstance(value, tuple) else value for path, value in drawn.items()}
        row |= {"epochs": len(record.by_epoch), "planned_epochs": record.epochs}
        rows.append(row | {name: getattr(record, name) for name in _COURSE})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    write_whole(file, buffer.getvalue())
