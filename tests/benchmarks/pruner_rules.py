"""Do Optuna's pruners stop the trials that Ray Tune's schedulers stop? Scripted learning curves, nothing is trained.

    python tests/benchmarks/pruner_rules.py --trials 200 --seeds 5

Each trial has a curve that rises to its own limit, with noise. Eight trials run at once and report an epoch in turn.
Both sides hear every epoch of every trial, whatever they decide, so a difference is one of the rules alone. The value
is the best one so far. ``paper`` is the rule of Li et al. (arXiv 1810.05934, algorithm 2) for successive halving: after
1/9 and 1/3 of its epochs a trial continues among the best floor(n / 3) of the n that came so far, itself included, or
as the best one of fewer than three. For the median rule, ``paper`` is Golovin et al. (KDD 2017, section 3.2.2).
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from fer_ray.search.strategy import make_pruner

EPOCHS, AT_ONCE, REDUCTION = 27, 8, 3


def curves(trials: int, seed: int) -> np.ndarray:
    """Return the best accuracy so far of each trial after each epoch."""
    draw = np.random.default_rng(seed)
    limits, rates = draw.normal(0.55, 0.08, trials), draw.uniform(0.08, 0.5, trials)
    epochs = np.arange(1, EPOCHS + 1)
    rising = limits[:, None] * (1 - np.exp(-rates[:, None] * epochs))
    return np.maximum.accumulate(rising + draw.normal(0, 0.01, rising.shape), axis=1)


def reports(trials: int) -> Iterator[tuple[int, int]]:
    """Yield (trial, epoch) in the order of the reports."""
    for first in range(0, trials, AT_ONCE):
        for epoch in range(1, EPOCHS + 1):
            yield from ((trial, epoch) for trial in range(first, min(first + AT_ONCE, trials)))


Decisions = dict[tuple[int, int], bool]
"""(trial, epoch) to whether the trial is stopped there, for every epoch but the last."""


def optuna_decisions(name: str, values: np.ndarray) -> Decisions:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name, EPOCHS))
    running, decisions = dict[int, optuna.Trial](), Decisions()
    for trial, epoch in reports(len(values)):
        if epoch == 1:
            running[trial] = study.ask()
        running[trial].report(values[trial, epoch - 1], epoch)
        decisions[trial, epoch] = running[trial].should_prune()
        if epoch == EPOCHS:
            study.tell(running[trial], values[trial, -1])
            del decisions[trial, epoch]
    return decisions


def ray_decisions(name: str, values: np.ndarray) -> Decisions:
    common: dict[str, Any] = {"time_attr": "progress", "metric": "value", "mode": "max", "grace_period": 100 / 9}
    scheduler: Any = (
        ASHAScheduler(max_t=100, reduction_factor=REDUCTION, **common)
        if name == "asha"
        else MedianStoppingRule(min_samples_required=5, min_time_slice=float("inf"), **common)
    )
    controller = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    decisions, running = Decisions(), dict[int, Any]()
    for trial, epoch in reports(len(values)):
        if epoch == 1:
            running[trial] = type("Trial", (), {"trial_id": str(trial)})()
            scheduler.on_trial_add(controller, running[trial])
        if epoch == EPOCHS:
            continue
        result = {"progress": 100 * epoch / EPOCHS, "value": values[trial, epoch - 1]}
        decision = scheduler.on_trial_result(controller, running[trial], result)
        if name == "median":
            scheduler._stopped_trials.discard(running[trial])
        decisions[trial, epoch] = decision == TrialScheduler.STOP
    return decisions


def paper_decisions(name: str, values: np.ndarray) -> Decisions:
    seen, decisions = {3: list[float](), 9: list[float]()}, Decisions()
    means: dict[int, list[float]] = {}
    for trial, epoch in reports(len(values)):
        value = values[trial, epoch - 1]
        means.setdefault(epoch, []).append(float(values[trial, :epoch].mean()))
        if epoch == EPOCHS:
            continue
        decisions[trial, epoch] = False
        if name == "asha" and epoch in seen:
            seen[epoch].append(value)
            kept = max(1, len(seen[epoch]) // REDUCTION)
            decisions[trial, epoch] = value < sorted(seen[epoch])[-kept]
        elif name == "median" and epoch >= EPOCHS / 9:
            complete = trial // AT_ONCE * AT_ONCE
            others = means[epoch][:complete]
            decisions[trial, epoch] = len(others) >= 5 and value < float(np.median(others))
    return decisions


def summary(decisions: Decisions, values: np.ndarray) -> str:
    """Say what a search with these decisions costs and loses."""
    ends = [
        next((epoch for epoch in range(1, EPOCHS) if decisions[trial, epoch]), EPOCHS) for trial in range(len(values))
    ]
    complete = [values[trial, -1] for trial, end in enumerate(ends) if end == EPOCHS]
    lost = values[:, -1].max() - max(complete)
    return f"{sum(ends) / values.size:.0%} of the epochs, {len(complete)} complete, best {100 * lost:.2f} points lower"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("asha", "median"):
        total = Counter[str]()
        for seed in range(arguments.seeds):
            values = curves(arguments.trials, seed)
            by_ray, by_optuna, by_paper = (
                decide(name, values) for decide in (ray_decisions, optuna_decisions, paper_decisions)
            )
            for key, paper in by_paper.items():
                total["judged"] += key[1] in (3, 9) if name == "asha" else key[1] >= EPOCHS / 9
                total["only Ray stops"] += by_ray[key] and not by_optuna[key]
                total["only Optuna stops"] += by_optuna[key] and not by_ray[key]
                total["Ray differs from the paper"] += by_ray[key] != paper
                total["Optuna differs from the paper"] += by_optuna[key] != paper
            print(f"{name}, seed {seed}: Ray {summary(by_ray, values)}; Optuna {summary(by_optuna, values)}")
        print(f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in total.items()), flush=True)


if __name__ == "__main__":
    main()
