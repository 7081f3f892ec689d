"""Charts of a search's trials: by number, by time, and by each searched parameter.

Colour and shape of a mark both show its space. Filled marks are complete trials, hollow ones pruned trials.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import nan
from typing import Any

from matplotlib import pyplot, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.visualization.matplotlib import plot_parallel_coordinate

from fer_ray.console.text import amount
from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import Figure
from fer_ray.reporting.search_costs import Importances
from fer_ray.reporting.search_results import Clock, SearchResults, label
from fer_ray.search.parameters import parameter
from fer_ray.search.search_metric import SearchMetric
from fer_ray.search.trial_records import TrialRecord

# Okabe & Ito's colours, which differ for the colour-blind too, without the yellow that white swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_MOST_VALUES = 6
_TIME_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str


def _styles(results: SearchResults) -> dict[str, _Style]:
    # Seven colours and eight shapes meet only once in 56 spaces.
    return {
        space: _Style(_COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)])
        for number, space in enumerate(results.spaces)
    }


def trial_figure(results: SearchResults) -> Figure:
    """Draw the value of each trial by its number, with the best so far; at least one trial has a value."""
    canvas, axes = new_chart()
    styles = _styles(results)
    _marks(axes, results.measured, [trial.number for trial in results.measured], styles)
    failed = [trial.number for trial in results.trials if trial.state == "FAIL"]
    _failures(axes, failed)
    numbers = [trial.number for trial in results.complete]
    if numbers:
        axes.step(numbers, _best_so_far(results.complete), where="post", color="0.4", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=results.objective.label)
    axes.yaxis.set_major_formatter(results.objective.tick)
    _legend(canvas, results, styles, best=bool(numbers), failed=bool(failed))
    what = results.objective.title
    alt = f"{what} of each trial by its number, and the best so far; the table of trials has the values."
    return Figure(to_png(canvas), alt, f"{what} by trial")


def time_figure(results: SearchResults, clock: Clock) -> list[Figure]:
    """Draw the best value so far by time; nothing if no times are known."""
    ends = [(second, trial) for second, trial in clock.ended() if trial.state == "COMPLETE"]
    if not ends:
        return []
    canvas, axes = new_chart()
    unit, length = next((unit for unit in _TIME_UNITS if clock.seconds >= 2 * unit[1]), _TIME_UNITS[-1])
    styles = _styles(results)
    x, y = [second / length for second, _ in ends], _best_so_far([trial for _, trial in ends])
    if len(styles) > 1:
        _steps_of_spaces(axes, [(second / length, trial) for second, trial in ends], clock.seconds / length, styles)
    axes.step([*x, clock.seconds / length], [*y, y[-1]], where="post", color="0.3", linewidth=1.8)
    better = [number for number in range(len(y)) if number == 0 or y[number] > y[number - 1]]
    for number in better:
        style = styles[ends[number][1].space]
        axes.plot(x[number], y[number], style.marker, color=style.colour, markersize=6)
    axes.set(xlabel=f"{unit} in which trials ran", ylabel=f"best {results.objective.label} so far", xlim=(0, None))
    axes.yaxis.set_major_formatter(results.objective.tick)
    if len(styles) > 1:
        _legend(canvas, results, styles, best=True, pruned=False)
    alt = f"Best {results.objective.label} so far by the time in which trials ran."
    return [Figure(to_png(canvas), alt, f"Best so far by time; {amount(len(better), 'trial')} better than all before")]


def _steps_of_spaces(
    axes: Axes, ends: Sequence[tuple[float, TrialRecord]], last: float, styles: Mapping[str, _Style]
) -> None:
    """Draw the best so far of each space until the end of the search."""
    for space, style in styles.items():
        own = [(moment, trial) for moment, trial in ends if trial.space == space]
        if own:
            steps = _best_so_far([trial for _, trial in own])
            moments = [*(moment for moment, _ in own), last]
            axes.step(moments, [*steps, steps[-1]], where="post", color=style.colour, linewidth=1, alpha=0.8)


def front_figure(results: SearchResults) -> list[Figure]:
    """Draw the complete trials by the first two objectives, the front ringed; nothing for one objective."""
    front = results.front
    if not front:
        return []
    canvas, axes = new_chart()
    styles = _styles(results)
    first, second = results.objectives[:2]
    _marks(axes, results.complete, _values(results.complete, second), styles)
    x, y = _values(front, second), _values(front, first)
    others = " and ".join(objective.label for objective in results.objectives[2:])
    if not others:
        # No trial reaches a point between two of the front: steps show what is dominated, a straight line would not.
        axes.step(x, y, where="pre", color="0.35", linewidth=1)
    axes.plot(x, y, "o", color="black", markerfacecolor="none", markersize=10)
    axes.set(xlabel=second.label, ylabel=first.label)
    axes.xaxis.set_major_formatter(second.tick)
    axes.yaxis.set_major_formatter(first.tick)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if len(styles) > 1:
        _legend(canvas, results, styles, best=False, pruned=False)
    alt = f"Complete trials by {second.label} and {first.label}; the table below has those of the front."
    caption = (
        f"The {len(front)} ringed trials are the front: no other is better in one objective and as good in the rest"
    )
    caption += f". The chart doesn't show {others}." if others else "."
    return [Figure(to_png(canvas), alt, caption)]


def slice_figures(results: SearchResults, order: Sequence[str] = ()) -> list[Figure]:
    """Draw the value of the trials by each searched parameter that has several values; nothing without values.

    Args:
        order: config paths that come first, such as the most important ones.
    """
    if not results.measured:
        return []
    return [
        _slice(results, path, distribution.kind)
        for path, distribution in results.searched(order).items()
        if len({trial.params.get(path) for trial in results.trials} - {None}) > 1
    ]


def parallel_figures(results: SearchResults, order: Sequence[str] = ()) -> list[Figure]:
    """Draw the complete trials of each space by Optuna as lines through their values; nothing for fewer than two.

    Args:
        order: config paths that come first. A figure has six parameters at most.
    """
    figures, objective, study = [], results.objective, results.study
    for space in results.spaces:
        own = [trial for trial in results.complete if trial.space == space]
        paths = [path for path in results.searched(order) if len({trial.params.get(path) for trial in own}) > 1]
        if len(own) < 2 or not paths:
            continue
        with warnings.catch_warnings(), rc_context(), pyplot.ioff():  # Optuna's function sets a style for all charts
            warnings.simplefilter("ignore", ExperimentalWarning)
            axes = plot_parallel_coordinate(
                study.optuna,
                params=[parameter(path, space, study.spaces) for path in paths[:_MOST_VALUES]],
                target=lambda trial: trial.values[0],
                target_name=objective.label,
            )
            axes.set_title("")
            canvas = pyplot.gcf()
            canvas.set_size_inches(9, 4)
            png = to_png(canvas, colours=128)
            pyplot.close(canvas)
        alt = f"A line for each of {len(own)} complete trials of {space} through its values of {', '.join(paths)}."
        others = " Lines through None are trials of other spaces." if len(results.spaces) > 1 else ""
        figures.append(Figure(png, alt, f"{space}: each complete trial is a line; darker is better.{others}"))
    return figures


def importance_figures(found: Sequence[Importances]) -> list[Figure]:
    """Draw the shares of each space as bars, the largest above."""
    figures = []
    for one in found:
        canvas, axes = new_chart(0.9 + 0.28 * len(one.shares))
        paths, shares = list(one.shares)[::-1], list(one.shares.values())[::-1]
        bars = axes.barh(paths, shares, color=_COLOURS[0], height=0.65)
        axes.bar_label(bars, [f"{share:.1%}" for share in shares], padding=3, fontsize=8)
        axes.set_xlim(0, max(shares) * 1.2)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(visible=False)
        told = ", ".join(f"{path} {share:.1%}" for path, share in one.shares.items())
        alt = f"Importance of the values of {one.space}: {told}."
        figures.append(Figure(to_png(canvas), alt, f"{one.space}, {one.trials:,} complete trials"))
    return figures


def _slice(results: SearchResults, path: str, kind: str) -> Figure:
    canvas, axes = new_chart(2.9)
    styles = _styles(results)
    having = [trial for trial in results.trials if path in trial.params]
    values = [trial.params[path] for trial in having]
    positions: Mapping[Any, float] = {}
    if kind == "categorical":
        choices = sorted(set(values), key=lambda choice: (str(type(choice)), choice))
        positions = {choice: position for position, choice in enumerate(choices)}
        axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
        if sum(len(str(choice)) for choice in choices) > 40:
            axes.tick_params(axis="x", labelrotation=30)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif kind == "log_uniform":
        axes.set_xscale("log")
        if max(values) > 10 * min(values):
            axes.xaxis.set_minor_formatter(NullFormatter())

    def position(trial: TrialRecord) -> float:
        value = trial.params[path]
        # Trials of one category are spread evenly, by their number.
        return positions[value] + 0.5 * ((trial.number * 0.618034) % 1 - 0.5) if positions else float(value)

    measured = [trial for trial in results.measured if path in trial.params]
    _marks(axes, measured, [position(trial) for trial in measured], styles)
    _failures(axes, [position(trial) for trial in having if trial.state == "FAIL"])
    best = results.study.best()
    if best and best.value is not None and path in best.params:
        axes.plot(position(best), best.value, "*", color="black", markersize=12, markerfacecolor="white", zorder=5)
    axes.set(xlabel=label(path), ylabel=results.objective.label)
    axes.yaxis.set_major_formatter(results.objective.tick)
    if len(styles) > 1:
        _legend(canvas, results, styles, best=False, pruned=False)
    alt = f"{results.objective.title} of the trials by {path}; the table of trials has the values."
    return Figure(to_png(canvas), alt, path)


def _values(trials: Sequence[TrialRecord], objective: SearchMetric) -> list[float]:
    return [trial.measured(objective.name) or nan for trial in trials]


def _best_so_far(trials: Sequence[TrialRecord]) -> list[float]:
    return list(accumulate((trial.value or 0.0 for trial in trials), max))


def _marks(axes: Axes, trials: Sequence[TrialRecord], x: Sequence[float], styles: Mapping[str, _Style]) -> None:
    size = 5 if len(trials) <= 100 else 3.5
    for state, fill, alpha, order in (("PRUNED", "none", 0.6, 2), ("COMPLETE", None, 0.85, 3)):
        for space, style in styles.items():
            some = [number for number, trial in enumerate(trials) if (trial.state, trial.space) == (state, space)]
            axes.plot(
                [x[number] for number in some],
                [trials[number].value or nan for number in some],
                style.marker,
                color=style.colour,
                markerfacecolor=fill or style.colour,
                markeredgewidth=0.8,
                markersize=size,
                alpha=alpha,
                zorder=order,
            )


def _failures(axes: Axes, x: Sequence[float]) -> None:
    """Mark trials without a value at the lower edge."""
    axes.plot(x, [0.02] * len(x), "x", color="0.35", markersize=5, transform=axes.get_xaxis_transform(), zorder=3)


def _legend(
    canvas: Canvas,
    results: SearchResults,
    styles: Mapping[str, _Style],
    best: bool,
    pruned: bool = True,
    failed: bool = False,
) -> None:
    handles = [
        Line2D([], [], linestyle="", marker=style.marker, color=style.colour, label=space, markersize=5)
        for space, style in styles.items()
        if len(styles) > 1
    ]
    first = next(iter(styles.values()))
    marker = first.marker if len(styles) == 1 else "o"
    colour = first.colour if len(styles) == 1 else "0.35"
    if pruned:
        states = {trial.state for trial in results.measured}
        for state, fill in (("COMPLETE", colour), ("PRUNED", "none")):
            if state in states:
                handles.append(
                    Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=fill, label=state.lower())
                )
    if failed:
        handles.append(Line2D([], [], linestyle="", marker="x", color="0.35", label="failed"))
    if best:
        handles.append(Line2D([], [], color="0.35", label="best so far"))
    canvas.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
        handletextpad=0.3,
        handlelength=1.2,
    )
