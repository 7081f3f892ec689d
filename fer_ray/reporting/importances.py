"""How much each searched value mattered, by fANOVA (Hutter et al., ICML 2014) over the complete trials of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from fer_ray.reporting.search_table import SearchedValue, SearchTable, Trial

MIN_TRIALS = 20
"""Complete trials of a space, below which a forest over them says more of its seed than of the search."""


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
