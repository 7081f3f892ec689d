"""The strategy of a search: objectives, Optuna sampler, and the rule that stops weak trials."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from fer_ray.config.search_space import SearchSpace
from fer_ray.config.tune_options import TuneOptions
from fer_ray.errors import UsageError
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric

GP_STARTUP = 10  # complete trials that Optuna's Gaussian process needs; until then it draws at random


@dataclass(frozen=True)
class Strategy:
    """Objectives, sampler and scheduler of a search, by name.

    The first objective selects the epoch of each trial whose weights and other metrics count, and the trial in
    ``best/``.
    """

    objectives: tuple[str, ...] = ("accuracy",)
    sampler: str = "tpe"
    scheduler: str = "asha"

    @property
    def first(self) -> SearchMetric:
        """The first objective."""
        return OBJECTIVES[self.objectives[0]]

    def notes(self) -> list[str]:
        """Return notes on what may surprise a user."""
        notes = []
        if len(self.objectives) > 1:
            notes.append(f"no trial is stopped early, because {len(self.objectives)} objectives give no single ranking")
        if self.sampler == "gp" and self.scheduler != "none":
            notes.append(
                f"the Gaussian process only learns from complete trials, needs {GP_STARTUP} of them and draws at random"
                f" until then. {self.scheduler} leaves few trials complete; --scheduler none leaves more"
            )
        return notes


DEFAULT_STRATEGY = Strategy()


def choose_strategy(options: TuneOptions) -> Strategy:
    """Return the requested strategy; ``UsageError`` with all problems if its parts don't go together.

    Without a scheduler, that is ``asha``, or ``none`` with several objectives.
    """
    objectives, scheduler = tuple(options.objective), options.scheduler
    problems = _sampler_problems(options.sampler, len(objectives), options.search_spaces)
    named = f"--objective {','.join(objectives)}"
    if len(set(objectives)) < len(objectives):
        problems.append(f"{named}: names an objective twice. Name each once.")
    if objectives[0] == "images_per_s":
        problems.append(
            f"{named}: the first objective selects the epoch of each trial, and speed doesn't differ by epoch. Put"
            " accuracy or macro_f1 first."
        )
    if scheduler is None:
        scheduler = "asha" if len(objectives) == 1 else "none"
    elif scheduler != "none" and len(objectives) > 1:
        problems.append(
            f"--scheduler {scheduler}: can't tell which trial is weaker with {len(objectives)} objectives. Omit it, or"
            " name one --objective."
        )
    if problems:
        raise UsageError(problems)
    return Strategy(objectives, options.sampler, scheduler)


def make_sampler(
    strategy: Strategy, seed: int, trials: int, ranges_changed: bool = False
) -> optuna.samplers.BaseSampler:
    """Make a sampler whose draws depend only on the seed and on the number of trials in the study so far.

    TPE (Bergstra et al., NeurIPS 2011) models parameters jointly, in groups because each space has its own parameters,
    and with the constant liar, which keeps concurrent trials apart. Once bounds of ranges have changed, groups would
    draw from the first bounds for ever; without groups, TPE models each parameter whose bounds changed on its own.
    ``qmc`` ignores the number of trials: the study counts how far its sequence is.
    """
    fresh = int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if strategy.sampler == "gp":
            return optuna.samplers.GPSampler(seed=fresh, n_startup_trials=GP_STARTUP)
        if strategy.sampler == "cmaes":
            # Without pruned trials, a generation would wait for as many complete trials as its population has.
            pruned = strategy.scheduler != "none"
            return optuna.samplers.CmaEsSampler(
                seed=fresh, consider_pruned_trials=pruned, warn_independent_sampling=False
            )
        if strategy.sampler == "random":
            return optuna.samplers.RandomSampler(seed=fresh)
        if strategy.sampler == "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(multivariate=True, group=not ranges_changed, constant_liar=True, seed=fresh)


def pruner_steps(spaces: Mapping[str, SearchSpace]) -> int:
    """Return the number of steps into which pruners divide each trial.

    Pruners compare trials after the same fraction of their own epochs, because a learning rate that falls to 0 makes
    the same epoch of a shorter trial look better. A step is an epoch of the longest trial, or slightly less: the number
    is a multiple of 9, so that 1/9 and 1/3 of a trial are whole steps.
    """
    return 9 * math.ceil(max(map(longest_trial, spaces.values())) / 9)


def longest_trial(space: SearchSpace) -> int:
    """Return the largest number of epochs that a trial of a space may have."""
    searched = space.search.get("training.epochs")
    return max(space.training.epochs, searched.values[-1] if searched else 0)


def make_pruner(scheduler: str, steps: int) -> optuna.pruners.BasePruner:
    """Make Optuna's pruner for a scheduler; ``steps`` as returned by ``pruner_steps``.

    ``asha``: asynchronous successive halving (Li et al., arXiv 1810.05934): after 1/9 and 1/3 of its epochs a trial
    continues only among the best third. ``hyperband``: the same in three brackets (Li et al., JMLR 2018), two of which
    compare later or never. ``median``: a trial stops below the median of at least 5 complete trials at the same step.
    """
    first = steps // 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if scheduler == "asha":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)
        if scheduler == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=steps, reduction_factor=3)
        if scheduler == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first, n_min_trials=5)
        return optuna.pruners.NopPruner()


def _sampler_problems(sampler: str, objectives: int, spaces: Mapping[str, SearchSpace]) -> list[str]:
    """Return what Optuna's sampler can't do or would silently draw at random."""
    problems = []
    if len(spaces) > 1 and sampler in ("gp", "cmaes", "qmc"):
        problems.append(
            f"--sampler {sampler}: only models parameters that every trial has and draws the rest at random, but"
            f" {len(spaces)} spaces are searched. Use tpe or random, or one space."
        )
    if sampler != "cmaes":
        return problems
    if find_spec("cmaes") is None:
        problems.append("--sampler cmaes: needs the package cmaes. Install it with `pip install cmaes`.")
    categorical = [
        f"{name}: {path}"
        for name, space in spaces.items()
        for path, by in space.search.items()
        if by.kind == "categorical"
    ]
    if categorical:
        problems.append(
            f"--sampler cmaes: only models numbers and would draw {'; '.join(categorical)} at random. Make them"
            " numbers, remove them from the search, or use tpe."
        )
    if objectives > 1:
        problems.append("--sampler cmaes: supports one objective. Name one --objective, or use tpe, gp, random or qmc.")
    return problems
