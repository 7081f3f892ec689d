"""Importance of the searched parameters (fANOVA, Hutter et al., ICML 2014), pruning and failures of a search."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from fer_ray.console.text import duration
from fer_ray.reporting.html import Table
from fer_ray.reporting.search_table import Clock, SearchedValue, SearchTable, Trial
from fer_ray.search.trial_records import error_line

_NUMBERS_SHOWN = 12


def pruning_tables(table: SearchTable, clock: Clock) -> list[Table]:
    """Return the number of pruned trials and the time saved; nothing without pruned trials."""
    pruned = [trial for trial in table.trials if trial["state"] == "PRUNED"]
    if not pruned:
        return []
    trained, planned = (sum(trial[column] for trial in pruned) for column in ("epochs", "planned_epochs"))
    saved, spent = sum(map(seconds_saved, pruned)), sum(trial["seconds"] or 0.0 for trial in table.trials)
    rows = [
        ("Pruned trials", f"{len(pruned):,} of {len(table.trials):,} ({len(pruned) / len(table.trials):.0%})"),
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


def seconds_saved(trial: Trial) -> float:
    """Estimate the training time that stopping a trial early saved: epochs not trained × its mean seconds an epoch."""
    if not trial["epochs"]:
        return 0.0
    return float((trial["planned_epochs"] - trial["epochs"]) * trial["seconds"] / trial["epochs"])


def failure_tables(table: SearchTable) -> list[Table]:
    """Return the errors of failed trials; errors that differ only in numbers are one row. Nothing without failures."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in table.trials:
        if trial["state"] == "FAIL":
            groups[re.sub(r"\d[\d.,]*", "#", error_line(trial["error"]))].append(trial)
    rows = []
    for group in sorted(groups.values(), key=len, reverse=True):
        numbers = ", ".join(str(trial["number"]) for trial in group[:_NUMBERS_SHOWN])
        more = f" and {len(group) - _NUMBERS_SHOWN} more" if len(group) > _NUMBERS_SHOWN else ""
        rows.append((error_line(group[0]["error"]), f"{len(group)}", numbers + more))
    note = "Errors that differ only in numbers are one row, with the text of the first."
    return [Table("Failed trials", ("Error", "Trials", "Their numbers"), rows, note)] if rows else []


MIN_TRIALS = 20
"""Complete trials of a space that importances need; with fewer, the seed of the forest decides them."""


@dataclass(frozen=True)
class Importances:
    """Of the values of one search space.

    Attributes:
        space: its name.
        trials: complete ones that the shares rest on, or that there are.
        shares: config path to its share of the variance of the first objective, largest first, sum 1; empty below
            ``MIN_TRIALS``, or where all trials came out equal.
        conditional: config paths that only some of its trials have a value at, which are left out of the shares.
    """

    space: str
    trials: int
    shares: Mapping[str, float]
    conditional: Sequence[str] = ()


def importances(table: SearchTable) -> list[Importances]:
    """Compute them for each space, over the range of values that its complete trials tried."""
    return [_of_space(table, space) for space in table.spaces]


def _of_space(table: SearchTable, space: str) -> Importances:
    own = [trial for trial in table.complete if trial["space"] == space]
    conditional, everywhere = list[SearchedValue](), list[SearchedValue]()
    for value in table.searched:
        tried = {trial[value.path] for trial in own}
        if len(tried) > 1:
            (conditional if None in tried else everywhere).append(value)
    left_out = [value.path for value in conditional]
    if len(own) < MIN_TRIALS or len({trial["value"] for trial in own}) == 1 or not everywhere:
        return Importances(space, len(own), {}, left_out)
    distributions = {value.path: _distribution(value, own) for value in everywhere}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for trial in own:
        params = {path: trial[path] for path in distributions}
        study.add_trial(create_trial(params=params, distributions=distributions, value=trial["value"]))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return Importances(space, len(own), shares, left_out)


def _distribution(value: SearchedValue, trials: Sequence[Trial]) -> BaseDistribution:
    tried = [trial[value.path] for trial in trials]
    if value.kind == "categorical":
        return CategoricalDistribution(list(dict.fromkeys(tried)))
    if value.kind == "int":
        return IntDistribution(min(tried), max(tried))
    return FloatDistribution(min(tried), max(tried), log=value.kind == "log_uniform")
