"""Charts of a search's trials: by number, by two objectives, and by each searched parameter.

Colour and shape of a mark both show its space. Filled marks are complete trials, hollow ones pruned trials.
"""

from collections.abc import Mapping
from itertools import accumulate
from math import nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from fer_ray.config.search_space import Distribution
from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import Figure
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.study import Study

# Okabe & Ito's colours, which differ for the colour-blind too, without the yellow that white swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_STATES = ("COMPLETE", "PRUNED", "FAIL")


class SearchResults:
    """Finished trials of a search, without interrupted ones: the trials that continue these have all their epochs."""

    def __init__(self, study: Study):
        self.study, self.objective = study, study.strategy.first
        self.objectives = [OBJECTIVES[name] for name in study.strategy.objectives]
        by_number = [record for record in study.records() if not record.interrupted]
        # The best value of each state first.
        self.trials = sorted(by_number, key=lambda trial: (_STATES.index(trial.state), -(trial.value or 0.0)))
        self.complete = [trial for trial in by_number if trial.state == "COMPLETE"]
        self.has_values = any(trial.value is not None and trial.state != "FAIL" for trial in by_number)
        self.spaces = [space for space in study.spaces if any(trial.space == space for trial in by_number)]
        self.searched = dict[str, Distribution]()  # by config path, of the first space that has it
        for space in study.spaces.values():
            self.searched |= {path: found for path, found in space.search.items() if path not in self.searched}
        front = set(study.pareto_front() if len(self.objectives) > 1 else ())
        self.front = [trial for trial in self.trials if trial.number in front]  # best by the first objective first


def label(path: str) -> str:
    """Return a config path as text; a field that is only called ``name`` is named by its section."""
    section, _, field = path.partition(".")
    return section if field == "name" else field.replace("_", " ").replace(".", " ")


def trial_figure(results: SearchResults) -> Figure:
    """Draw the value of each trial by its number, with the best so far; at least one trial has a value."""
    canvas, axes = new_chart()
    _marks(axes, results, {trial.number: trial.number for trial in results.trials})
    if complete := results.complete:
        best = list(accumulate((trial.value or 0.0 for trial in complete), max))
        numbers = [trial.number for trial in complete]
        axes.step(numbers, best, where="post", color="0.4", linewidth=1, label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    what = results.objective.title
    alt = f"{what} of each trial by its number, and the best so far; the table of trials has the values."
    return _figure(canvas, axes, alt, f"{what} by trial; hollow marks are pruned trials")


def front_figure(results: SearchResults) -> Figure:
    """Draw the complete trials by the first two objectives, those of the front ringed."""
    canvas, axes = new_chart()
    first, second = results.objectives[:2]
    _marks(axes, results, {trial.number: trial.measured(second.name) or nan for trial in results.complete})
    x, y = ([trial.measured(one.name) or nan for trial in results.front] for one in (second, first))
    others = " and ".join(objective.label for objective in results.objectives[2:])
    if not others:
        # No trial reaches a point between two of the front: steps show what is dominated, a straight line would not.
        axes.step(x, y, where="pre", color="0.35", linewidth=1)
    axes.plot(x, y, "o", color="black", markerfacecolor="none", markersize=10)
    axes.set_xlabel(second.label)
    axes.xaxis.set_major_formatter(second.write)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    alt = f"Complete trials by {second.label} and {first.label}; the table below has those of the front."
    caption = (
        f"The {len(x)} ringed trials are the front: no other is better in one objective and as good in the rest."
        + f" The chart doesn't show {others}." * bool(others)
    )
    return _figure(canvas, axes, alt, caption)


def slice_figures(results: SearchResults) -> list[Figure]:
    """Draw the value of the trials by each searched parameter that has several values; nothing without values."""
    return [
        _slice(results, path, distribution.kind)
        for path, distribution in results.searched.items()
        if results.has_values and len({trial.params.get(path) for trial in results.trials} - {None}) > 1
    ]


def importance_figure(space: str, trials: int, importances: Mapping[str, float]) -> Figure:
    """Draw the share of each config path as a bar, the largest above."""
    canvas, axes = new_chart(0.9 + 0.28 * len(importances))
    paths, shares = list(importances)[::-1], list(importances.values())[::-1]
    bars = axes.barh(paths, shares, color=_COLOURS[0], height=0.65)
    axes.bar_label(bars, [f"{share:.1%}" for share in shares], padding=3, fontsize=8)
    axes.set_xlim(0, max(shares) * 1.2)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=False)
    listed = ", ".join(f"{path} {share:.1%}" for path, share in importances.items())
    return Figure(to_png(canvas), f"Importance of the values of {space}: {listed}.", f"{space}, {trials:,} trials")


def _slice(results: SearchResults, path: str, kind: str) -> Figure:
    canvas, axes = new_chart(2.9)
    x: dict[int, Any] = {trial.number: trial.params[path] for trial in results.trials if path in trial.params}
    if kind == "categorical":
        choices = sorted(set(x.values()), key=lambda choice: (str(type(choice)), choice))
        axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
        if sum(len(str(choice)) for choice in choices) > 40:
            axes.tick_params(axis="x", labelrotation=30)
        axes.set_xlim(-0.5, len(choices) - 0.5)
        # Trials of one category are spread evenly, by their number.
        x = {number: choices.index(value) + (number * 0.618034) % 1 / 2 - 0.25 for number, value in x.items()}
    elif kind == "log_uniform":
        axes.set_xscale("log")
        if max(x.values()) > 10 * min(x.values()):
            axes.xaxis.set_minor_formatter(NullFormatter())
    _marks(axes, results, x)
    best = results.study.best()
    if best and best.value is not None and best.number in x:
        axes.plot(x[best.number], best.value, "*", color="black", markersize=12, markerfacecolor="white", zorder=5)
    axes.set_xlabel(label(path))
    alt = f"{results.objective.title} of the trials by {path}; the table of trials has the values."
    return _figure(canvas, axes, alt, path)


def _marks(axes: Axes, results: SearchResults, x: Mapping[int, float]) -> None:
    """Mark trials by their value, failed ones at the lower edge; ``x`` has their positions by number."""
    axes.set_ylabel(results.objective.label)
    axes.yaxis.set_major_formatter(results.objective.write)
    shown = [trial for trial in results.trials if trial.number in x]
    for number, space in enumerate(results.spaces):
        # Seven colours and eight shapes meet only once in 56 spaces.
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        style: dict[str, Any] = {"color": colour, "markeredgewidth": 0.8, "markersize": 5 if len(shown) <= 100 else 3.5}
        for state, fill, alpha, order in (("PRUNED", "none", 0.6, 2), ("COMPLETE", colour, 0.85, 3)):
            some = [trial for trial in shown if (trial.state, trial.space) == (state, space)]
            points = [x[trial.number] for trial in some], [trial.value or nan for trial in some]
            axes.plot(*points, marker, markerfacecolor=fill, alpha=alpha, zorder=order, **style)
        if len(results.spaces) > 1:
            axes.lines[-1].set_label(space)
    if failed := [x[trial.number] for trial in shown if trial.state == "FAIL"]:
        style = {"color": "0.35", "markersize": 5, "transform": axes.get_xaxis_transform()}
        axes.plot(failed, [0.02] * len(failed), "x", zorder=3, label="failed", **style)


def _figure(canvas: Canvas, axes: Axes, alt: str, caption: str) -> Figure:
    if axes.get_legend_handles_labels()[1]:
        canvas.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, handlelength=1.2)
    return Figure(to_png(canvas), alt, caption)
