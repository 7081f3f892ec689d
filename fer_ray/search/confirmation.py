"""The best configurations of a search trained again with new seeds, because one trial is an anecdote.

What a trial was picked by is high by luck too, the more so the more trials there were: the winner's curse. Runs with
seeds that no trial had, of which none is picked, say what the configuration is worth.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import t as student

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.console.text import amount, duration
from fer_ray.errors import DataError, UsageError
from fer_ray.search.search_metric import SearchMetric
from fer_ray.search.trial_records import TrialRecord
from fer_ray.storage.local import remove_leftovers, write_whole
from fer_ray.storage.output import SHARE_IT, Output
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, RunFolder, Snapshot, best_epoch

CONFIGURATIONS, SEEDS = 3, 3
CONFIRM_FILE = "confirm.parquet"

ConfirmationRow = dict[str, Any]
"""Of the table: column to value."""


@dataclass(frozen=True)
class SeedRun:
    """A training run of a trial's configuration with another seed.

    Attributes:
        trial: that drew the configuration.
        config: the same but for its seed.
        folder: of the run, its name such as ``12-seed1``.
    """

    trial: TrialRecord
    config: Config
    folder: RunFolder

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.path.name

    @property
    def seconds_left(self) -> float:
        """An estimate from what the trial's own epochs took; 0 where it has none."""
        epochs = self.config.training.epochs - len(self.folder.history())
        return epochs * (self.trial.seconds or 0.0) / max(1, len(self.trial.by_epoch))

    def begin(self) -> None:
        """Make its folder, or clean the one of an earlier call.

        Raises:
            UsageError: it is there and holds another configuration.
        """
        self.folder.output.fetch()
        if self.folder.config_file.is_file() and load_config(self.folder.config_file) != self.config:
            raise UsageError(
                f"{self.folder.output.path_or_url}: holds another configuration than that of trial {self.trial.number}."
                " Move it away."
            )
        remove_leftovers(self.folder.last)
        self.folder.begin(self.config)

    def train(self, data: TrainingData, on_epoch: Callable[[Metrics], None]) -> None:
        """Train to the end, beginning after the last epoch that an earlier call finished.

        Args:
            on_epoch: is given the metrics of each epoch.

        Raises:
            UsageError: its folder isn't visible here, or the training diverged.
            FerRayError: the disk refuses what is to be written.
        """
        self.folder.output.fetch()
        if not self.folder.config_file.is_file():
            raise UsageError(f"{self.folder.output.path_or_url}: not visible on {os.uname().nodename}. {SHARE_IT}")
        self.folder.catch_up()

        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            self.folder.record(metrics, snapshot)
            on_epoch(metrics)

        fit(self.config, data, report, resume_from=self.folder.resumable())
        self.folder.close()


def seed_runs(records: Sequence[TrialRecord], objective: SearchMetric, output: Output | Path) -> list[SeedRun]:
    """Return the runs of the best configurations, the first seed of each before the second ones.

    So that what an interrupted call has finished says something of each.

    Args:
        records: finished trials of the study.
        objective: by which trials are compared.
        output: in which each run has its own folder.
    """
    chosen = [(trial, _new_seeds(trial, records)) for trial in best_configurations(records)]
    return [
        SeedRun(
            trial,
            with_seed(trial.config, seeds[step]),
            RunFolder(Output.at(output).within(f"{trial.number}-seed{seeds[step]}"), objective.metric),
        )
        for step in range(SEEDS)
        for trial, seeds in chosen
    ]


def _new_seeds(trial: TrialRecord, records: Sequence[TrialRecord]) -> list[int]:
    """The next seeds after a trial's own with which no trial has trained its configuration."""
    own = with_seed(trial.config, 0)
    had = {record.config.training.seed for record in records if with_seed(record.config, 0) == own}
    return list(islice((seed for seed in count(trial.config.training.seed + 1) if seed not in had), SEEDS))


def best_configurations(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials with the best values, one of each configuration; seeds make none of their own."""
    complete = [record for record in records if record.state == "COMPLETE"]
    best: list[TrialRecord] = []
    for record in sorted(complete, key=lambda record: (-(record.value or 0.0), record.number)):
        if all(with_seed(record.config, 0) != with_seed(other.config, 0) for other in best):
            best.append(record)
    return best[:CONFIGURATIONS]


def describe_runs(runs: Sequence[SeedRun], left: Sequence[SeedRun], concurrent: int) -> str:
    """Say what is about to run: how many of all runs, with how many at once, and about how long."""
    trials = list(dict.fromkeys(run.trial.number for run in runs))
    named = f"{'trial' if len(trials) == 1 else 'trials'} {', '.join(map(str, trials))}"
    seconds = sum(run.seconds_left for run in left) / concurrent
    return (
        f"confirming {named} with {SEEDS} new seeds each: {len(left)} of {amount(len(runs), 'run')} left,"
        f" {concurrent} at once, about {duration(seconds)} by what the trials took"
    )


def with_seed(config: Config, seed: int) -> Config:
    """Return a configuration with another seed."""
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def write_confirmation(
    folder: Path, runs: Sequence[SeedRun], objective: SearchMetric, errors: Mapping[str, str]
) -> None:
    """Write ``confirm.parquet``, a row a run that is finished or failed; those of other configurations stay.

    Args:
        folder: of the search.
        errors: by the runs' names.
    """
    previous = {row["run"]: row for row in _read_rows(folder)}
    now = {run.name: _row(run, objective, errors.get(run.name)) for run in runs if _ended(run, errors)}
    if rows := {**previous, **now}:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows.values()), _SCHEMA), buffer)
        write_whole(folder / CONFIRM_FILE, buffer.getvalue())


_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("trial", pa.int64()),
        ("space", pa.string()),
        ("seed", pa.int64()),
        *((f"{of}{name}", pa.float64()) for of in ("search_", "") for name in ("value", "accuracy", "macro_f1")),
        ("best_epoch", pa.int64()),
        ("epochs", pa.int64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
"""``search_value`` is the trial's own first objective, ``value`` that of the run, both of their best epoch by it, as
accuracy and macro-F1 are; null where a run failed. ``seconds`` are those of its epochs."""


def _ended(run: SeedRun, errors: Mapping[str, str]) -> bool:
    return run.name in errors or run.folder.closed()


def _row(run: SeedRun, objective: SearchMetric, error: str | None) -> ConfirmationRow:
    trial, history = run.trial, run.folder.history()
    row = {
        "run": run.name,
        "trial": trial.number,
        "space": trial.space,
        "seed": run.config.training.seed,
        "search_value": trial.value,
        "search_accuracy": trial.accuracy,
        "search_macro_f1": trial.macro_f1,
        "epochs": len(history),
        "seconds": sum(line["seconds"] for line in history),
        "error": error,
    }
    if error is None:
        best = best_epoch(history, objective.metric)
        row |= {"value": best[objective.metric], "best_epoch": int(best["epoch"])}
        row |= {name: best[f"validation_{name}"] for name in ("accuracy", "macro_f1")}
    return row


@dataclass(frozen=True)
class Confirmed:
    """A configuration and its runs.

    Attributes:
        trial: number of the trial that drew it.
        space: name of the search space it was drawn from.
        rows: of its runs, by seed.
    """

    trial: int
    space: str
    rows: Sequence[ConfirmationRow]

    def searched(self, name: str = "value") -> float:
        """The trial's own figure, of ``value``, ``accuracy`` or ``macro_f1``."""
        return float(self.rows[0][f"search_{name}"])

    def values(self, name: str = "value") -> list[float]:
        """The figure of each run that didn't fail."""
        return [row[name] for row in self.rows if row["error"] is None]

    def mean(self, name: str = "value") -> float:
        """Over the runs, of which there is one at least."""
        return mean(self.values(name))

    def spread(self, name: str = "value") -> float | None:
        """Standard deviation over the runs (n - 1); None for fewer than two."""
        values = self.values(name)
        return stdev(values) if len(values) > 1 else None


def read_confirmation(folder: Path) -> list[Confirmed]:
    """Read ``confirm.parquet`` of a search, the best mean first, those whose runs all failed last; empty without it.

    Raises:
        DataError: the file can't be read.
    """
    rows = _read_rows(folder)
    found = [
        Confirmed(trial, own[0]["space"], sorted(own, key=lambda row: row["seed"]))
        for trial in dict.fromkeys(row["trial"] for row in rows)
        for own in [[row for row in rows if row["trial"] == trial]]
    ]
    return sorted(found, key=lambda one: (-one.mean() if one.values() else 0.0, one.trial))


def _read_rows(folder: Path) -> list[ConfirmationRow]:
    file = folder / CONFIRM_FILE
    try:
        return pq.read_table(file).to_pylist() if file.is_file() else []
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{file}: not readable: {reason}. Remove it; `tune --resume --confirm` makes it again from the runs."
        ) from error


def resolution(confirmed: Sequence[Confirmed]) -> float | None:
    """Return the least difference of two means that the seeds' spread doesn't explain; None where it isn't known.

    Student's t at 95% for a pair of means, the spread pooled over all configurations.
    """
    groups = [one.values() for one in confirmed if len(one.values()) > 1]
    free = sum(len(group) - 1 for group in groups)
    if not free:
        return None
    pooled = sqrt(sum((len(group) - 1) * stdev(group) ** 2 for group in groups) / free)
    fewest = min(len(group) for group in groups)
    return float(student.ppf(0.975, free)) * pooled * sqrt(2 / fewest)
