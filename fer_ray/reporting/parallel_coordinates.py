"""Parallel coordinates of a search: a line a complete trial through all its values, to what it reached."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator

from fer_ray.reporting.charts import to_png
from fer_ray.reporting.html import Figure
from fer_ray.reporting.search_table import SearchedValue, SearchTable, Trial, choices
from fer_ray.reporting.trial_charts import spread
from fer_ray.search.search_metric import SearchMetric

# By lightness, which the colour-blind see as others do, and which a page in dark mode turns over as a whole.
_COLOURS = LinearSegmentedColormap.from_list("light to dark", ["#c9d3dc", "#7fa3c7", "#2a5f9e", "#081d45"])
_BEST = "#D55E00"
_ABSENT = -0.14
_INCHES_AN_AXIS, _LEAST_INCHES, _HEIGHT = 1.25, 6.5, 3.6
_MOST_VALUES = 6


@dataclass(frozen=True)
class _Axis:
    """One vertical line: where a trial crosses it, from 0 to 1, None where it has no value there."""

    label: str
    place: Callable[[Trial], float | None]
    ticks: Sequence[tuple[float, str]]
    has_absent: bool


def parallel_figures(table: SearchTable, order: Sequence[str] = ()) -> list[Figure]:
    """Draw the complete trials, better ones darker and on top; nothing for fewer than two.

    Args:
        order: config paths that come first, such as those that mattered most. At most six values stand in a figure, so
            that a page shows each at a size that can be read; more are dealt to several of much the same width.
    """
    trials = sorted(table.complete, key=lambda trial: (trial["value"], -trial["number"]))
    values = [value for value in table.in_order(order) if len({trial[value.path] for trial in trials}) > 1]
    if len(trials) < 2 or not values:
        return []
    parts = np.array_split(np.arange(len(values)), math.ceil(len(values) / _MOST_VALUES))
    return [_figure(table, values[part[0] : part[-1] + 1], trials, int(part[0]) + 1, len(values)) for part in parts]


def _figure(
    table: SearchTable, values: Sequence[SearchedValue], trials: Sequence[Trial], first: int, of: int
) -> Figure:
    several = len({trial["space"] for trial in trials}) > 1
    lines = [_axis("space", "space", "categorical", trials, str)] if several else []
    lines += [_axis(value.label, value.path, value.kind, trials, "{:.4g}".format) for value in values]
    for objective in table.objectives[::-1]:
        column = "value" if objective is table.objective else objective.name
        lines.append(_axis(objective.label, column, "uniform", trials, objective.tick))
    width = max(_LEAST_INCHES, _INCHES_AN_AXIS * (len(lines) + 0.6))
    canvas = Canvas(figsize=(width, _HEIGHT), layout="constrained")
    axes = canvas.subplots()
    _draw_trials(axes, lines, trials)
    for number, line in enumerate(lines):
        _draw_axis(axes, number, line)
    axes.set(xlim=(-0.35, len(lines) - 0.75), ylim=(-0.2 if any(line.has_absent for line in lines) else -0.04, 1.04))
    axes.set_axis_off()
    _colour_bar(canvas, axes, trials, table.objective)
    alt = (
        f"A line for each of {len(trials)} complete trials through its values of"
        f" {', '.join(line.label for line in lines[:-1])} to its {lines[-1].label}, the best one marked;"
        " the table of trials has the values."
    )
    which = "" if of <= _MOST_VALUES else f"Values {first} to {first + len(values) - 1} of {of}. "
    return Figure(to_png(canvas, colours=128), alt, which + _caption(lines))


def _caption(lines: Sequence[_Axis]) -> str:
    absent = " A line through the foot of an axis has no value there." if any(line.has_absent for line in lines) else ""
    return f"Each complete trial is a line through its values; darker is better, the best is orange.{absent}"


def _draw_trials(axes: Axes, lines: Sequence[_Axis], trials: Sequence[Trial]) -> None:
    scale = _scale(trials)
    thin = 1.5 if len(trials) <= 20 else 1.1 if len(trials) <= 60 else 0.7
    for trial in trials:
        is_best = trial is trials[-1]
        places = [line.place(trial) for line in lines]
        axes.plot(
            range(len(lines)),
            [_ABSENT + spread(trial, 0.04) if place is None else place for place in places],
            color=_BEST if is_best else _COLOURS(scale(trial["value"])),
            linewidth=2 if is_best else thin,
            alpha=1 if is_best else 0.85,
            solid_joinstyle="round",
        )


def _draw_axis(axes: Axes, number: int, line: _Axis) -> None:
    axes.plot([number, number], [0, 1], color="0.25", linewidth=1, zorder=5)
    ground = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "boxstyle": "square,pad=0.1"}
    ticks = [*line.ticks, (_ABSENT, "none")] if line.has_absent else line.ticks
    for place, text in ticks:
        axes.plot([number - 0.03, number], [place, place], color="0.25", linewidth=1, zorder=5)
        axes.text(number - 0.05, place, text, ha="right", va="center", fontsize=8, zorder=6, bbox=ground)
    axes.text(
        number, 1.07, "\n".join(textwrap.wrap(line.label, 15)), ha="center", va="bottom", fontsize=9, fontweight="bold"
    )


def _axis(label: str, column: str, kind: str, trials: Sequence[Trial], write: Callable[[Any], str]) -> _Axis:
    values = [trial[column] for trial in trials if trial[column] is not None]
    has_absent = len(values) < len(trials)
    if kind == "categorical":
        return _categories(label, column, values, has_absent)
    low, high = min(values), max(values)
    turn: Callable[[Any], Any] = np.log if kind == "log_uniform" else np.asarray
    begin, length = float(turn(low)), float(turn(high) - turn(low)) or 1.0

    def share(value: float) -> float:
        return (float(turn(value)) - begin) / length

    def place(trial: Trial) -> float | None:
        return None if trial[column] is None else share(trial[column])

    ticks = [(share(tick), write(tick)) for tick in _ticks(kind, low, high)]
    return _Axis(label, place, ticks, has_absent)


def _categories(label: str, column: str, values: Sequence[Any], has_absent: bool) -> _Axis:
    tried = choices(values)
    last = max(1, len(tried) - 1)
    places = {choice: number / last for number, choice in enumerate(tried)}

    def place(trial: Trial) -> float | None:
        value = trial[column]
        return None if value is None else places[value] + spread(trial, min(0.08, 0.4 / last))

    return _Axis(label, place, [(places[choice], str(choice)) for choice in tried], has_absent)


def _ticks(kind: str, low: float, high: float) -> list[float]:
    """Round values within the range; its ends where fewer than two are."""
    if kind == "log_uniform":
        locator: Any = LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0))
    else:
        locator = MaxNLocator(4, integer=kind == "int")
    found = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    return found if len(found) > 1 else sorted({low, high})


def _scale(trials: Sequence[Trial]) -> Normalize:
    """From the worst tenth up, so that a few that never learned don't take all the colours."""
    values = [trial["value"] for trial in trials]
    low = float(np.quantile(values, 0.1))
    return Normalize(low, values[-1] if values[-1] > low else low + 1e-6, clip=True)


def _colour_bar(canvas: Canvas, axes: Axes, trials: Sequence[Trial], objective: SearchMetric) -> None:
    bar = canvas.colorbar(
        ScalarMappable(_scale(trials), _COLOURS), ax=axes, extend="min", fraction=0.04, pad=0.02, aspect=25
    )
    bar.ax.yaxis.set_major_formatter(objective.tick)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(objective.label, fontsize=8)
