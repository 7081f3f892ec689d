"""Importance of the searched parameters (fANOVA, Hutter et al., ICML 2014), pruning and failures of a search."""

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from fer_ray.console.text import duration
from fer_ray.reporting.html import Table
from fer_ray.reporting.search_results import Clock, SearchResults
from fer_ray.search.parameters import parameter
from fer_ray.search.trial_records import TrialRecord, error_line

_NUMBERS_SHOWN = 12


def pruning_tables(results: SearchResults, clock: Clock) -> list[Table]:
    """Return the number of pruned trials and the time saved; nothing without pruned trials."""
    pruned = [trial for trial in results.trials if trial.state == "PRUNED"]
    if not pruned:
        return []
    trained, planned = sum(len(trial.by_epoch) for trial in pruned), sum(trial.epochs for trial in pruned)
    saved, spent = sum(map(seconds_saved, pruned)), sum(trial.seconds or 0.0 for trial in results.trials)
    total = len(results.trials)
    rows = [
        ("Pruned trials", f"{len(pruned):,} of {total:,} ({len(pruned) / total:.0%})"),
        ("Epochs of pruned trials", f"{trained:,} of {planned:,} ({trained / planned:.0%})"),
        ("Time in epochs of all trials", duration(spent)),
        ("Time saved, estimated", f"{duration(saved)}: without pruning, {duration(spent + saved)}"),
    ]
    if clock.at_once >= 1:
        running = duration(clock.seconds), f"{clock.at_once:.1f}"
        rows.append(("The search itself", f"{running[0]}, with {running[1]} trials at once on average"))
    note = (
        "The saved time of a pruned trial is its epochs not trained × its mean seconds per epoch. The true time is less"
        " if patience would have ended the trial, and more if later epochs have larger images. Trials that the time"
        " budget stopped count as pruned. What a pruned trial would have reached isn't known."
    )
    return [Table("Pruning", (), rows, note)]


def seconds_saved(trial: TrialRecord) -> float:
    """Estimate the training time that stopping a trial early saved: epochs not trained × mean seconds per epoch."""
    trained = len(trial.by_epoch)
    return (trial.epochs - trained) * (trial.seconds or 0.0) / trained if trained else 0.0


def failure_tables(results: SearchResults) -> list[Table]:
    """Return the errors of failed trials; errors that differ only in numbers are one row. Nothing without failures."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in results.trials:
        if trial.state == "FAIL":
            groups[re.sub(r"\d[\d.,]*", "#", error_line(trial.error))].append(trial)
    rows = []
    for group in sorted(groups.values(), key=len, reverse=True):
        numbers = ", ".join(str(trial.number) for trial in group[:_NUMBERS_SHOWN])
        more = f" and {len(group) - _NUMBERS_SHOWN} more" if len(group) > _NUMBERS_SHOWN else ""
        rows.append((error_line(group[0].error), f"{len(group)}", numbers + more))
    note = "Errors that differ only in numbers are one row, with the text of the first."
    return [Table("Failed trials", ("Error", "Trials", "Their numbers"), rows, note)] if rows else []


MIN_TRIALS = 20
"""Complete trials of a space that importances need; with fewer, the seed of the forest decides them."""


@dataclass(frozen=True)
class Importances:
    """Importances of the parameters of one search space.

    Attributes:
        space: name of the space.
        trials: number of its complete trials.
        shares: config path to its share of the variance of the first objective, largest first; empty below
            ``MIN_TRIALS``, if ranges changed, or if all trials have the same value.
    """

    space: str
    trials: int
    shares: Mapping[str, float]


def importances(results: SearchResults) -> list[Importances]:
    """Compute the importances of each space by Optuna, from the study."""
    return [_of_space(results, space) for space in results.spaces]


def _of_space(results: SearchResults, space: str) -> Importances:
    study = results.study
    own = [trial for trial in results.complete if trial.space == space]
    names = {parameter(path, space, study.spaces): path for path in study.spaces[space].search}
    if study.ranges_changed or len(own) < MIN_TRIALS or len({trial.value for trial in own}) == 1:
        return Importances(space, len(own), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        shares = get_param_importances(
            study.optuna,
            evaluator=FanovaImportanceEvaluator(seed=0),
            params=list(names),
            target=lambda trial: trial.values[0],
        )
    return Importances(space, len(own), {names[name]: share for name, share in shares.items()})
