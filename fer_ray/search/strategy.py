"""How a search goes about it: by which objectives, which of Optuna's samplers, and what stops weak trials."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from fer_ray.config.search_space import Searched, SearchSpace
from fer_ray.errors import UsageError, did_you_mean
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric

SAMPLERS = ("tpe", "gp", "cmaes", "random", "qmc")
SCHEDULERS = ("asha", "hyperband", "median", "none")
GP_STARTUP = 10
"""Complete trials before Optuna's Gaussian process says anything; until then it draws at random."""


@dataclass(frozen=True)
class Strategy:
    """How a search goes about it.

    Attributes:
        objectives: names in ``OBJECTIVES``. The first one picks each trial's epoch, whose weights are kept and by
            which the others are measured, and the trial that ``best/`` is of.
        sampler: one of ``SAMPLERS``.
        scheduler: one of ``SCHEDULERS``.
    """

    objectives: tuple[str, ...] = ("accuracy",)
    sampler: str = "tpe"
    scheduler: str = "asha"

    @property
    def first(self) -> SearchMetric:
        """The first objective."""
        return OBJECTIVES[self.objectives[0]]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of an epoch that measure the objectives."""
        return tuple(OBJECTIVES[name].metric for name in self.objectives)

    def notes(self) -> list[str]:
        """Say what a user may not expect of it."""
        notes = []
        if len(self.objectives) > 1:
            notes.append(f"no trial is stopped early: with {len(self.objectives)} objectives none is simply weaker")
        if self.sampler == "gp" and self.scheduler != "none":
            notes.append(
                f"the Gaussian process learns from complete trials alone, from the {GP_STARTUP}th on; until then it"
                f" draws at random, and {self.scheduler} leaves few complete. --scheduler none gives it more"
            )
        return notes


DEFAULT_STRATEGY = Strategy()


def choose_strategy(objective: str, sampler: str, scheduler: str | None, spaces: Mapping[str, SearchSpace]) -> Strategy:
    """Check what was asked for.

    Args:
        objective: one of ``OBJECTIVES``, or several with commas between.
        scheduler: one of ``SCHEDULERS``; None for ``asha``, or ``none`` with several objectives.
        spaces: those that could be read.

    Raises:
        UsageError: with all problems.
    """
    objectives = tuple(name.strip() for name in objective.split(","))
    problems = _objective_problems(objective, objectives)
    if sampler not in SAMPLERS:
        problems.append(f"--sampler {sampler}: choose one of {', '.join(SAMPLERS)}.{did_you_mean(sampler, SAMPLERS)}")
    else:
        problems += _sampler_problems(sampler, len(objectives), spaces)
    if scheduler is None:
        scheduler = "asha" if len(objectives) == 1 else "none"
    elif scheduler not in SCHEDULERS:
        near = did_you_mean(scheduler, SCHEDULERS)
        problems.append(f"--scheduler {scheduler}: choose one of {', '.join(SCHEDULERS)}.{near}")
    elif scheduler != "none" and len(objectives) > 1:
        problems.append(
            f"--scheduler {scheduler}: can't tell which trial is weaker by {len(objectives)} objectives. Leave it out,"
            " or name one --objective."
        )
    if problems:
        raise UsageError(problems)
    return Strategy(objectives, sampler, scheduler)


def make_sampler(strategy: Strategy, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Make a sampler whose draws follow from the seed and the trials before.

    TPE (Bergstra et al., NeurIPS 2011) takes parameters jointly; grouped, as spaces and options have their own ones,
    and with the constant liar, which keeps trials that run at once apart.

    Args:
        trials: how many the study has, so that a resumed search draws other candidates than its beginning. The
            sequence of ``qmc`` is kept instead, as the study counts how far it is.
    """
    fresh = int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if strategy.sampler == "gp":
            return optuna.samplers.GPSampler(seed=fresh, n_startup_trials=GP_STARTUP)
        if strategy.sampler == "cmaes":
            # Without the pruned ones, a generation would wait for as many complete trials as its population has.
            pruned = strategy.scheduler != "none"
            return optuna.samplers.CmaEsSampler(
                seed=fresh, consider_pruned_trials=pruned, warn_independent_sampling=False
            )
        if strategy.sampler == "random":
            return optuna.samplers.RandomSampler(seed=fresh)
        if strategy.sampler == "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=fresh)


def name_objectives(study: optuna.Study, strategy: Strategy) -> None:
    """Tell Optuna what the values of trials are called, which its dashboard shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([OBJECTIVES[name].label for name in strategy.objectives])


def _objective_problems(asked: str, objectives: Sequence[str]) -> list[str]:
    problems = [
        f"--objective {asked}: '{name}' is none of {', '.join(OBJECTIVES)}.{did_you_mean(name, OBJECTIVES)}"
        for name in objectives
        if name not in OBJECTIVES
    ]
    if len(set(objectives)) < len(objectives):
        problems.append(f"--objective {asked}: names one twice. Name each once.")
    if objectives[0] == "images_per_s":
        problems.append(
            f"--objective {asked}: the first one picks each trial's epoch, which speed can't. Put accuracy or macro_f1"
            " before it."
        )
    return problems


def _sampler_problems(sampler: str, objectives: int, spaces: Mapping[str, SearchSpace]) -> list[str]:
    """Say what Optuna's sampler wouldn't do, or would silently draw at random instead."""
    problems = []
    dynamic = [f"{name}: {path} is a choice" for name, space in spaces.items() for path in _paths_of(space, "choice")]
    if len(spaces) > 1:
        dynamic.insert(0, f"{len(spaces)} spaces are searched")
    if dynamic and sampler in ("gp", "cmaes", "qmc"):
        problems.append(
            f"--sampler {sampler}: models only what every trial draws and would draw the rest at random, but"
            f" {'; '.join(dynamic)}. Take tpe or random, or one space without choices."
        )
    if sampler != "cmaes":
        return problems
    if find_spec("cmaes") is None:
        problems.append("--sampler cmaes: needs the package cmaes. Install it by `pip install cmaes`.")
    categorical = [f"{name}: {path}" for name, space in spaces.items() for path in _paths_of(space, "categorical")]
    if categorical:
        problems.append(
            f"--sampler cmaes: knows numbers alone and would draw {'; '.join(categorical)} at random. Make them"
            " numbers, leave them out of the search, or take tpe."
        )
    if objectives > 1:
        problems.append("--sampler cmaes: has one objective. Name one --objective, or take tpe, gp, random or qmc.")
    return problems


def _paths_of(space: SearchSpace, kind: str) -> list[str]:
    def walk(search: Searched) -> list[str]:
        found = []
        for path, distribution in search.items():
            found += [path] if distribution.kind == kind else []
            for brought in distribution.branches.values():
                found += walk(brought)
        return found

    return walk(space.search)
