"""The folder of a search: ``study.db``, ``trials.parquet``, ``best.yaml``, ``report.html`` and ``best/`` (weights)."""

import io
import json
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.engine import URL

from fer_ray.config.files import to_yaml
from fer_ray.console.text import amount
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import load_checkpoint, load_training_state
from fer_ray.search.study import Candidate, Study
from fer_ray.search.trial_records import TrialRecord, error_line
from fer_ray.storage.local import recover_folder, whole_folder, write_whole
from fer_ray.storage.output import Output
from fer_ray.training.run_folder import EpochCheckpoints, Metrics


class SearchFolder:
    """Writes and reads a search's folder. Each file and folder is replaced as a whole, so a kill leaves none torn.

    While it runs, ``.trials/NUMBER/`` holds a trial's best and last checkpoint and ``.ray/`` what Ray Tune writes.
    """

    def __init__(self, output: Output | Path):
        self.output = Output.at(output)
        self.path = path = self.output.path
        self.best, self.best_config, self.table = path / "best", path / "best.yaml", path / "trials.parquet"
        self.scratch, self.ray = self.output.within(".trials"), self.output.within(".ray")
        self.page, self._name = path / "report.html", path / "study.json"
        self._saved = 0.0  # when, in seconds by the clock
        self._taken: tuple[int, float | None] | None = None  # whose weights are in ``best``

    def new_study_name(self) -> str:
        """Return a name that no other search's study has."""
        return f"{self.path.name}-{uuid.uuid4().hex[:8]}"

    def begin(self, name: str) -> None:
        """Note which study this folder is of from now on, and which ones before."""
        previous = self._studies() if self._name.is_file() else []
        write_whole(self._name, json.dumps({"study": name, "previous": previous}))

    def study_name(self) -> str:
        """Return the name of the study that this folder is of.

        Raises:
            UsageError: there is none.
        """
        return self._studies()[-1]

    def _studies(self) -> list[str]:
        try:
            noted = json.loads(self._name.read_text(encoding="utf-8"))
            return [*noted["previous"], noted["study"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (
                error.strerror
                if isinstance(error, OSError)
                else "it is damaged, or was written by another version of fer_ray"
            )
            raise UsageError(
                f"{self.output.path_or_url}: no search to resume, {self._name.name} can't be read: {reason}."
                " Name the folder of a search, or start one in a new folder without --resume."
            ) from error

    @property
    def database(self) -> str:
        """The URL of the study's own database, used where no other is named."""
        return URL.create("sqlite", database=str(self.path / "study.db")).render_as_string(hide_password=False)

    def save(self) -> None:
        """Send what changed to the object store; ``best/`` and ``confirm/`` are sent where they are written."""
        if not self.output.is_remote:
            return
        since, self._saved = self._saved, time.time()
        changed = [path for path in self.path.rglob("*") if path.is_file() and path.stat().st_mtime >= since]
        names = [path.relative_to(self.path).as_posix() for path in changed]
        self.output.save(*(name for name in names if not name.startswith((".", "best/", "confirm/"))))

    def take_over(self, candidate: Candidate) -> None:
        """Let a trial go on in the folder of the one that it continues, whose process may still be about to end."""
        there = self.scratch.folders()
        for number in map(str, candidate.continues):
            if number in there:
                self.scratch.move(number, str(candidate.number))
                return

    def keep_best(self, study: Study) -> None:
        """Take over the checkpoint of the study's best trial by now, and remove those that no trial needs."""
        recover_folder(self.best)
        best = study.best()
        if best is not None and self._taken != (best.number, best.reached):
            self._take(best, kept_epochs(self.scratch, best.number, study.strategy.first.metric))
        needed = {str(number) for number in study.needed()}
        for name in self.scratch.folders():
            if name not in needed:
                self.scratch.within(name).clear()
        self.save()

    def history(self, number: int, metric: str) -> list[Metrics]:
        """Return the epochs of a trial that are kept, heard of or not."""
        kept = kept_epochs(self.scratch, number, metric)
        kept.output.fetch("last")
        last = kept.resumable()
        history: list[Metrics] = load_training_state(last)["history"] if last else []
        kept.output.forget()
        return history

    def _take(self, best: TrialRecord, trained: EpochCheckpoints) -> None:
        trained.output.fetch("best")
        if trained.best.is_dir():
            with whole_folder(self.best, replace=True) as partial:
                shutil.copytree(trained.best, partial, dirs_exist_ok=True)
            mark = f"# Of trial {best.number}, {best.stopped}; no trial had trained to its end.\n"
            write_whole(self.best_config, mark * bool(best.stopped) + to_yaml(best.config))
            self._taken = best.number, best.reached
            self.output.save(self.best.name, self.best_config.name)
        trained.output.forget()

    def write_table(self, study: Study) -> None:
        """Write ``trials.parquet``."""
        buffer = io.BytesIO()
        pq.write_table(_trials_table(study), buffer)
        write_whole(self.table, buffer.getvalue())

    def finish(self, study: Study) -> TrialRecord:
        """Check that ``best/`` is the best trial's, and remove what only the search needed.

        Returns:
            The best trial; where none trained to its end, one that was stopped early.

        Raises:
            UsageError: all trials failed, or none had time for an epoch.
            DataError: the weights of the best one are not there.
        """
        best = study.best()
        if best is None:
            counted = [record for record in study.records() if not record.interrupted]
            errors = [record.error for record in counted if record.error]
            if not counted:
                raise UsageError(
                    f"{self.output.path_or_url}: no trial had time for an epoch. Go on with --resume and more"
                    " --time-budget."
                )
            raise UsageError(
                f"{self.output.path_or_url}: none of {amount(len(counted), 'trial')} trained to its end: the first"
                f" that failed says: {error_line(errors[0]).rstrip('.')}. {self.page.name} has the errors of all."
                " Mend their cause and go on with --resume and more --trials."
            )
        metric = study.strategy.first.metric
        value = load_checkpoint(self.best).info.metrics[metric] if self.best.is_dir() else None
        # Of a trial that a kill stopped, an epoch may be kept of which nobody has heard.
        if value is None or (value != best.reached and not (best.interrupted and value > (best.reached or 0.0))):
            raise DataError(
                f"{self.output.file('best')}: doesn't hold the weights of trial {best.number}, the best one with"
                f" {best.reached}. Was something removed, or did the trial run on a node that doesn't share this disk?"
            )
        if not study.needed():
            self.scratch.clear()
        self.ray.clear()
        return best


def is_begun(output: Output) -> bool:
    """Return whether a trial of a search has ended, or has an epoch from which it can be resumed."""
    folder = SearchFolder(output)
    has_ended = folder.table.is_file() and pq.read_metadata(folder.table).num_rows > 0
    return has_ended or folder.best.is_dir() or bool(folder.scratch.folders())


def kept_epochs(scratch: Output, number: int, metric: str) -> EpochCheckpoints:
    """Return the checkpoints of a trial, the best one by a metric."""
    return EpochCheckpoints(scratch.within(str(number)), "best", metric)


def _trials_table(study: Study) -> pa.Table:
    """One row a finished trial, with a column for each config path that any space searches.

    ``value`` is the first objective; ``accuracy``, ``macro_f1`` and ``images_per_s`` are of the epoch that is best by
    it. ``pareto`` marks the trials than which no other is better by one objective and as good by the others. The names
    of the objectives stand in the table's metadata, with commas between. The column of a config path is null where it
    was not drawn for the trial, and its field's metadata say by ``kind`` how it is searched: ``uniform``,
    ``log_uniform``, ``int`` or ``categorical``. ``interrupted`` marks the failed trials that another one went on
    with, and ``continues`` is, in that other one, their number.
    """
    records, front = study.records(), set(study.pareto_front())
    columns: dict[str, list[Any]] = {
        "number": [record.number for record in records],
        "state": [record.state for record in records],
        "value": [record.value for record in records],
        "accuracy": [record.accuracy for record in records],
        "macro_f1": [record.macro_f1 for record in records],
        "images_per_s": [record.images_per_s for record in records],
        "pareto": [record.number in front for record in records],
        "architecture": [record.config.model.name for record in records],
        "space": [record.space for record in records],
    }
    kinds = _searched_kinds(study)
    for path in kinds:
        columns[path] = [_cell(record.params.get(path)) for record in records]
    columns[study.strategy.objectives[0]] = [record.reached for record in records]  # of those too that a kill ended
    columns |= {
        "epochs": [len(record.by_epoch) for record in records],
        "planned_epochs": [record.config.training.epochs for record in records],
        "best_epoch": [record.best_epoch for record in records],
        "seconds": [record.seconds for record in records],
        "started": [record.started for record in records],
        "ended": [record.ended for record in records],
        "error": [record.error for record in records],
        "interrupted": [record.interrupted for record in records],
        "continues": pa.array([record.continues for record in records], pa.int64()),
    }
    table = pa.table(columns)
    fields = [
        field.with_metadata({"kind": kinds[field.name]}) if field.name in kinds else field for field in table.schema
    ]
    return table.cast(pa.schema(fields, {"objectives": ",".join(study.strategy.objectives)}))


def _cell(value: Any) -> Any:
    """A value as a column holds it: lists as text."""
    return str(value) if isinstance(value, tuple) else value


def _searched_kinds(study: Study) -> dict[str, str]:
    """Each config path that is drawn, and the kind of its distribution where it first stands.

    What only previous spaces of the search have drawn has a kind as its values look.
    """
    kinds: dict[str, str] = {}
    for space in study.spaces.values():
        for path, distribution in space.search.items():
            kinds.setdefault(path, distribution.kind)
    for record in study.records():
        for path, value in record.params.items():
            kinds.setdefault(path, {float: "uniform", int: "int"}.get(type(value), "categorical"))
    return kinds
