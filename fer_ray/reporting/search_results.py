"""The results of a search as its page needs them, read from the study."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from fer_ray.config.search_space import Distribution
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord

_STATES = ("COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True)
class SearchResults:
    """Finished trials of a search, without interrupted ones: the trials that continue these have all their epochs."""

    study: Study

    @cached_property
    def trials(self) -> list[TrialRecord]:
        """Finished trials by number."""
        return [record for record in self.study.records() if not record.interrupted]

    @property
    def interrupted(self) -> int:
        """Number of interrupted trials."""
        return len(self.study.records()) - len(self.trials)

    @cached_property
    def complete(self) -> list[TrialRecord]:
        """Complete trials by number."""
        return [trial for trial in self.trials if trial.state == "COMPLETE"]

    @cached_property
    def measured(self) -> list[TrialRecord]:
        """Complete and pruned trials with a value, by number."""
        return [trial for trial in self.trials if trial.value is not None and trial.state != "FAIL"]

    @property
    def objectives(self) -> list[SearchMetric]:
        """All objectives."""
        return [OBJECTIVES[name] for name in self.study.strategy.objectives]

    @property
    def objective(self) -> SearchMetric:
        """The first objective."""
        return self.study.strategy.first

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces that have trials."""
        return [space for space in self.study.spaces if any(trial.space == space for trial in self.trials)]

    @property
    def front(self) -> list[TrialRecord]:
        """Trials of the Pareto front, best by the first objective first; empty for one objective."""
        numbers = set(self.study.pareto_front() if len(self.objectives) > 1 else ())
        return [trial for trial in self.ranked() if trial.number in numbers]

    def searched(self, first: Sequence[str] = ()) -> Mapping[str, Distribution]:
        """Return the searched config paths, those in ``first`` first, with the distribution of the first space."""
        spaces = list(self.study.spaces.values())[::-1]
        known = {path: distribution for space in spaces for path, distribution in space.search.items()}
        paths = dict.fromkeys([*first, *(path for space in spaces[::-1] for path in space.search)])
        return {path: known[path] for path in paths}

    def ranked(self) -> list[TrialRecord]:
        """Return complete, pruned and failed trials in this order, the best value of each state first."""
        return sorted(self.trials, key=lambda trial: (_STATES.index(trial.state), -(trial.value or 0.0)))


def label(path: str) -> str:
    """Return a config path as text; a field that is only called ``name`` is named by its section."""
    section, _, field = path.partition(".")
    return section if field == "name" else field.replace("_", " ").replace(".", " ")


class Clock:
    """Measures moments in seconds in which trials ran, without the pauses between calls of a resumed search."""

    def __init__(self, trials: Sequence[TrialRecord]):
        self._timed = [(trial.started, trial.ended, trial) for trial in trials if trial.started and trial.ended]
        self._stretches: list[tuple[datetime, datetime]] = []
        for begin, end in sorted((begin, end) for begin, end, _ in self._timed):
            if self._stretches and begin <= self._stretches[-1][1]:
                self._stretches[-1] = (self._stretches[-1][0], max(end, self._stretches[-1][1]))
            else:
                self._stretches.append((begin, end))

    @property
    def seconds(self) -> float:
        """Seconds in which at least one trial ran."""
        return sum((end - begin).total_seconds() for begin, end in self._stretches)

    @property
    def pause(self) -> float:
        """Seconds between the first start and the last end in which no trial ran."""
        ends = self._stretches
        return (ends[-1][1] - ends[0][0]).total_seconds() - self.seconds if ends else 0.0

    @property
    def at_once(self) -> float:
        """Mean number of trials that ran at once; 0 if no times are known."""
        trial_seconds = sum((end - begin).total_seconds() for begin, end, _ in self._timed)
        return trial_seconds / self.seconds if self.seconds else 0.0

    def ended(self) -> list[tuple[float, TrialRecord]]:
        """Return the trials with the second of their end, in order."""
        starts = [begin for begin, _ in self._stretches]
        ends = []
        for _, moment, trial in self._timed:
            before = self._stretches[: bisect_right(starts, moment)]
            ends.append((sum((min(end, moment) - begin).total_seconds() for begin, end in before), trial))
        return sorted(ends, key=lambda pair: (pair[0], pair[1].number))
