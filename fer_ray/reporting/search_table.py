"""``trials.parquet`` of a search as the page needs it: trials, what was searched for and by which values, and time."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.search.search_metric import OBJECTIVES, SearchMetric

TRIALS_FILE = "trials.parquet"
_STATES = ("COMPLETE", "PRUNED", "FAIL")

Trial = dict[str, Any]
"""A row of the table: column to value."""


@dataclass(frozen=True)
class SearchedValue:
    """A config path that was searched.

    Attributes:
        path: such as ``model.dropout``, which is also its column.
        kind: ``log_uniform``, ``uniform``, ``int`` or ``categorical``.
    """

    path: str
    kind: str

    @property
    def label(self) -> str:
        """The path in words; its section stands for a field that is only called ``name``."""
        section, _, field = self.path.partition(".")
        return section if field == "name" else field.replace("_", " ").replace(".", " ")


@dataclass(frozen=True)
class SearchTable:
    """The finished trials of a search, by number.

    Attributes:
        trials: the rows of ``trials.parquet``, without those of interrupted trials: other ones went on with these, and
            have all that was trained.
        searched: its columns that are config paths.
        objectives: the first one is the column ``value``, by which trials are ranked.
        interrupted: how many were.
        stopped: where no trial trained to its end, the row of the one with the best epoch, interrupted ones included.
    """

    trials: Sequence[Trial]
    searched: Sequence[SearchedValue]
    objectives: Sequence[SearchMetric] = (OBJECTIVES["accuracy"],)
    interrupted: int = 0
    stopped: Trial | None = None

    @property
    def objective(self) -> SearchMetric:
        """The first one."""
        return self.objectives[0]

    @cached_property
    def complete(self) -> list[Trial]:
        """Trials that trained to their end, by number."""
        return [trial for trial in self.trials if trial["state"] == "COMPLETE" and trial["value"] is not None]

    @cached_property
    def measured(self) -> list[Trial]:
        """Trials with a value, the pruned ones too, by number."""
        return [trial for trial in self.trials if trial["value"] is not None]

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best value, the first of equal ones."""
        return max(self.complete, key=lambda trial: trial["value"], default=None)

    @cached_property
    def spaces(self) -> list[str]:
        """Names of the search spaces, by alphabet."""
        return sorted({trial["space"] for trial in self.trials})

    def in_order(self, first: Sequence[str]) -> list[SearchedValue]:
        """Return the searched values, those at the given config paths first and in their order."""
        ranks = {path: rank for rank, path in reversed(list(enumerate(first)))}
        return sorted(self.searched, key=lambda value: ranks.get(value.path, len(ranks)))

    @property
    def front(self) -> list[Trial]:
        """Of several objectives, the trials of the Pareto front, the best by the first one first; else none."""
        if len(self.objectives) < 2:
            return []
        return sorted((trial for trial in self.complete if trial["pareto"]), key=lambda trial: -trial["value"])

    def ranked(self) -> list[Trial]:
        """Complete trials, then pruned, then failed ones, the best value first among each."""
        return sorted(self.trials, key=lambda trial: (_STATES.index(trial["state"]), -(trial["value"] or 0.0)))


def read_search_table(folder: Path) -> SearchTable:
    """Read a search's trials.

    Raises:
        OSError, pyarrow.ArrowException: the file can't be read.
    """
    table = pq.read_table(folder / TRIALS_FILE)
    searched = [SearchedValue(field.name, _kind(field)) for field in table.schema if "." in field.name]
    # Searches for accuracy alone name no objective.
    names = (table.schema.metadata or {}).get(b"objectives", b"accuracy").decode().split(",")
    rows = table.to_pylist()
    trials = [row for row in rows if not row["interrupted"]]
    ended = [row for row in rows if row["state"] == "COMPLETE"]
    continued = {row["continues"] for row in rows if row["epochs"] or not row["interrupted"]}
    stopped = [
        row
        for row in rows
        if row["epochs"] and (row["state"] == "PRUNED" or (row["interrupted"] and row["number"] not in continued))
    ]
    best = None if ended else max(stopped, key=lambda row: (row[names[0]], -row["number"]), default=None)
    return SearchTable(trials, searched, [OBJECTIVES[name] for name in names], len(rows) - len(trials), best)


def _kind(field: pa.Field) -> str:
    noted = (field.metadata or {}).get(b"kind")
    if noted:
        return str(noted.decode())
    if pa.types.is_integer(field.type):
        return "int"
    return "uniform" if pa.types.is_floating(field.type) else "categorical"


def choices(values: Iterable[Any]) -> list[Any]:
    """Return the different values of a categorical, which may be of several types, in one order always."""
    return sorted(set(values), key=lambda choice: (str(type(choice)), choice))


class Clock:
    """Tells moments as seconds in which trials ran: the pauses between the calls of a resumed search don't count.

    A trial whose driver was killed has no time of its own, for it was closed only when the search was resumed.
    """

    def __init__(self, trials: Sequence[Trial]):
        timed = [trial for trial in trials if _is_timed(trial)]
        self._stretches: list[tuple[datetime, datetime]] = []
        for begin, end in sorted((trial["started"], trial["ended"]) for trial in timed):
            if self._stretches and begin <= self._stretches[-1][1]:
                self._stretches[-1] = (self._stretches[-1][0], max(end, self._stretches[-1][1]))
            else:
                self._stretches.append((begin, end))
        self.trial_seconds = sum((trial["ended"] - trial["started"]).total_seconds() for trial in timed)

    @property
    def seconds(self) -> float:
        """Seconds in which at least one trial ran."""
        return sum((end - begin).total_seconds() for begin, end in self._stretches)

    @property
    def pause(self) -> float:
        """Seconds between the first start and the last end in which no trial ran."""
        if not self._stretches:
            return 0.0
        return (self._stretches[-1][1] - self._stretches[0][0]).total_seconds() - self.seconds

    @property
    def at_once(self) -> float:
        """Trials that ran at once in the mean; 0 where no times are known."""
        return self.trial_seconds / self.seconds if self.seconds else 0.0

    def at(self, moment: datetime) -> float:
        """Return how many of these seconds lie before a moment."""
        before = bisect_right([begin for begin, _ in self._stretches], moment)
        return sum((min(end, moment) - begin).total_seconds() for begin, end in self._stretches[:before])

    def ended(self, trials: Sequence[Trial]) -> list[tuple[float, Trial]]:
        """Return the trials whose end is known, each with its second, in order of that."""
        ends = [(self.at(trial["ended"]), trial) for trial in trials if _is_timed(trial)]
        return sorted(ends, key=lambda pair: (pair[0], pair[1]["number"]))


def _is_timed(trial: Trial) -> bool:
    return None not in (trial["started"], trial["ended"], trial["seconds"])
