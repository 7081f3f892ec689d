"""Train the best configurations of a search with new seeds.

A trial is selected by its value, so its value is optimistic, the more so the more trials there were (the winner's
curse). Runs with new seeds, none of which is selected, show how good the configuration is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import sqrt
from statistics import mean, stdev

import optuna
from scipy.stats import t as student

from fer_ray.config.paths import with_values
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.search.database import open_database
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study
from fer_ray.search.trial_records import FOLDER, TrialRecord

CONFIGURATIONS, SEEDS = 3, 3


def open_confirmation(search: Study, storage: str) -> Study:
    """Open the study over (configuration, seed) for the best configurations of a search, or create it.

    All pairs are enqueued, the first seed of each configuration before the second ones. Optuna's ``GridSampler`` would
    draw the same pairs, but ends an ``optimize`` loop, which this program doesn't have. Each configuration is a space,
    named by the number of its trial.
    """
    best, seeds = best_configurations(search.records()), new_seeds(search.records())
    name = "-".join([search.name, "confirm", *(str(record.number) for record in best)])
    if name in open_database(storage, optuna.get_all_study_names):
        return Study.read(name, storage)
    spaces = {}
    for record in best:
        values = {"training.seed": {"categorical": [record.config.training.seed, *seeds]}}
        spaces[str(record.number)] = SearchSpace.model_validate(record.config.model_dump() | {"search": values})
    first = [
        (str(record.number), with_seed(record.config, seed), {FOLDER: f"{record.number}-seed{seed}"})
        for seed in seeds
        for record in best
    ]
    strategy = Strategy(search.strategy.objectives, "random", "none")
    return Study.create(name, storage, spaces, search.dataset_fingerprint, strategy, first)


def best_configurations(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials with the best values, without those that differ from a better one only in the seed."""
    complete = [record for record in records if record.state == "COMPLETE"]
    best = dict[Config, TrialRecord]()
    for record in sorted(complete, key=lambda record: (-(record.value or 0.0), record.number)):
        best.setdefault(with_seed(record.config, 0), record)
    return list(best.values())[:CONFIGURATIONS]


def new_seeds(records: Sequence[TrialRecord]) -> list[int]:
    """Return the next seeds with which no trial was trained."""
    used = {record.config.training.seed for record in records}
    return list(islice((seed for seed in count(min(used) + 1) if seed not in used), SEEDS))


def with_seed(config: Config, seed: int) -> Config:
    """Return a configuration with another seed."""
    return with_values(config, {"training.seed": seed})


@dataclass(frozen=True)
class Confirmed:
    """The trial of the search that drew a configuration, and its finished runs with new seeds, by seed."""

    trial: TrialRecord
    runs: Sequence[TrialRecord]

    def searched(self, objective: str) -> float:
        """Return the value of an objective, by its name, in the search."""
        return self.trial.measured(objective) or 0.0

    def values(self, objective: str) -> list[float]:
        """Return an objective, by its name, of each complete run."""
        measured = [run.measured(objective) for run in self.runs if run.state == "COMPLETE"]
        return [value for value in measured if value is not None]

    def mean(self, objective: str) -> float:
        """Return the mean over the complete runs, of which there is at least one."""
        return mean(self.values(objective))

    def spread(self, objective: str) -> float | None:
        """Return the standard deviation (n - 1) over the complete runs; None for fewer than two."""
        values = self.values(objective)
        return stdev(values) if len(values) > 1 else None


def confirmed(search: Study, confirmation: Study | None) -> list[Confirmed]:
    """Return the configurations of a study with new seeds, best mean first, those without a complete run last."""
    if confirmation is None:
        return []
    trials = {str(record.number): record for record in search.records()}
    runs = [record for record in confirmation.records() if not record.interrupted]
    found = [
        Confirmed(trials[space], sorted(own, key=lambda run: run.config.training.seed))
        for space in confirmation.spaces
        if (own := [run for run in runs if run.space == space])
    ]
    first = search.strategy.objectives[0]
    return sorted(found, key=lambda one: (-one.mean(first) if one.values(first) else 0.0, one.trial.number))


def resolution(confirmed: Sequence[Confirmed], objective: str) -> float | None:
    """Return the smallest difference of two means that the spread over seeds doesn't explain; None if unknown.

    Student's t at 95% for a pair of means, with the spread pooled over all configurations.
    """
    groups = [values for one in confirmed if len(values := one.values(objective)) > 1]
    free = sum(len(group) - 1 for group in groups)
    if not free:
        return None
    pooled = sqrt(sum((len(group) - 1) * stdev(group) ** 2 for group in groups) / free)
    fewest = min(len(group) for group in groups)
    return float(student.ppf(0.975, free)) * pooled * sqrt(2 / fewest)
