"""Charts of a search's trials: by number, by time, and by each searched parameter.

Colour and shape of a mark both show its space. Filled marks are complete trials, hollow ones pruned trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from fer_ray.console.text import amount
from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import Figure
from fer_ray.reporting.search_costs import Importances
from fer_ray.reporting.search_table import Clock, SearchedValue, SearchTable, Trial, choices

# Okabe & Ito's colours, which differ for the colour-blind too, without the yellow that white swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_TIME_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str


def _styles(table: SearchTable) -> dict[str, _Style]:
    # Seven colours and eight shapes meet only once in 56 spaces.
    return {
        space: _Style(_COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)])
        for number, space in enumerate(table.spaces)
    }


def trial_figure(table: SearchTable) -> Figure:
    """Draw the value of each trial by its number, with the best so far; at least one trial has a value."""
    canvas, axes = new_chart()
    styles = _styles(table)
    _marks(axes, table.measured, [trial["number"] for trial in table.measured], styles)
    failed = [trial["number"] for trial in table.trials if trial["state"] == "FAIL"]
    _failures(axes, failed)
    numbers = [trial["number"] for trial in table.complete]
    if numbers:
        axes.step(numbers, _best_so_far(table.complete), where="post", color="0.4", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=table.objective.label)
    axes.yaxis.set_major_formatter(table.objective.tick)
    _legend(canvas, table, styles, best=bool(numbers), failed=bool(failed))
    what = table.objective.title
    alt = f"{what} of each trial by its number, and the best so far; the table of trials has the values."
    return Figure(to_png(canvas), alt, f"{what} by trial")


def time_figure(table: SearchTable, clock: Clock) -> list[Figure]:
    """Draw the best value so far by time; nothing if no times are known."""
    ends = clock.ended(table.complete)
    if not ends:
        return []
    canvas, axes = new_chart()
    unit, length = next((unit for unit in _TIME_UNITS if clock.seconds >= 2 * unit[1]), _TIME_UNITS[-1])
    styles = _styles(table)
    x, y = [second / length for second, _ in ends], _best_so_far([trial for _, trial in ends])
    if len(styles) > 1:
        _steps_of_spaces(axes, [(second / length, trial) for second, trial in ends], clock.seconds / length, styles)
    axes.step([*x, clock.seconds / length], [*y, y[-1]], where="post", color="0.3", linewidth=1.8)
    better = [number for number in range(len(y)) if number == 0 or y[number] > y[number - 1]]
    for number in better:
        style = styles[ends[number][1]["space"]]
        axes.plot(x[number], y[number], style.marker, color=style.colour, markersize=6)
    axes.set(xlabel=f"{unit} in which trials ran", ylabel=f"best {table.objective.label} so far", xlim=(0, None))
    axes.yaxis.set_major_formatter(table.objective.tick)
    if len(styles) > 1:
        _legend(canvas, table, styles, best=True, pruned=False)
    alt = f"Best {table.objective.label} so far by the time in which trials ran."
    return [Figure(to_png(canvas), alt, f"Best so far by time; {amount(len(better), 'trial')} better than all before")]


def _steps_of_spaces(
    axes: Axes, ends: Sequence[tuple[float, Trial]], last: float, styles: Mapping[str, _Style]
) -> None:
    """Draw the best so far of each space until the end of the search."""
    for space, style in styles.items():
        own = [(moment, trial) for moment, trial in ends if trial["space"] == space]
        if own:
            steps = _best_so_far([trial for _, trial in own])
            moments = [*(moment for moment, _ in own), last]
            axes.step(moments, [*steps, steps[-1]], where="post", color=style.colour, linewidth=1, alpha=0.8)


def front_figure(table: SearchTable) -> list[Figure]:
    """Draw the complete trials by the first two objectives, the front ringed; nothing for one objective."""
    front = table.front
    if not front:
        return []
    canvas, axes = new_chart()
    styles = _styles(table)
    first, second = table.objectives[:2]
    _marks(axes, table.complete, [trial[second.name] for trial in table.complete], styles)
    x, y = [trial[second.name] for trial in front], [trial["value"] for trial in front]
    others = " and ".join(objective.label for objective in table.objectives[2:])
    if not others:
        # No trial reaches a point between two of the front: steps show what is dominated, a straight line would not.
        axes.step(x, y, where="pre", color="0.35", linewidth=1)
    axes.plot(x, y, "o", color="black", markerfacecolor="none", markersize=10)
    axes.set(xlabel=second.label, ylabel=first.label)
    axes.xaxis.set_major_formatter(second.tick)
    axes.yaxis.set_major_formatter(first.tick)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if len(styles) > 1:
        _legend(canvas, table, styles, best=False, pruned=False)
    alt = f"Complete trials by {second.label} and {first.label}; the table below has those of the front."
    caption = (
        f"The {len(front)} ringed trials are the front: no other is better in one objective and as good in the rest"
    )
    caption += f". The chart doesn't show {others}." if others else "."
    return [Figure(to_png(canvas), alt, caption)]


def slice_figures(table: SearchTable, order: Sequence[str] = ()) -> list[Figure]:
    """Draw the value of the trials by each searched value that has more than one; nothing where none has a value.

    Args:
        order: config paths that come first, such as those that mattered most.
    """
    if not table.measured:
        return []
    return [_slice(table, value) for value in table.in_order(order) if _differs(table, value)]


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


def _differs(table: SearchTable, value: SearchedValue) -> bool:
    return len({trial[value.path] for trial in table.trials} - {None}) > 1


def _slice(table: SearchTable, value: SearchedValue) -> Figure:
    canvas, axes = new_chart(2.9)
    styles = _styles(table)
    having = [trial for trial in table.trials if trial[value.path] is not None]
    places: Mapping[Any, float] = {}
    if value.kind == "categorical":
        tried = choices(trial[value.path] for trial in having)
        places = {choice: place for place, choice in enumerate(tried)}
        axes.set_xticks(range(len(tried)), [str(choice) for choice in tried])
        if sum(len(str(choice)) for choice in tried) > 40:
            axes.tick_params(axis="x", labelrotation=30)
        axes.set_xlim(-0.5, len(tried) - 0.5)
    elif value.kind == "log_uniform":
        axes.set_xscale("log")
        if max(trial[value.path] for trial in having) > 10 * min(trial[value.path] for trial in having):
            axes.xaxis.set_minor_formatter(NullFormatter())

    def place(trial: Trial) -> float:
        return places[trial[value.path]] + spread(trial, 0.5) if places else float(trial[value.path])

    measured = [trial for trial in having if trial["value"] is not None]
    _marks(axes, measured, [place(trial) for trial in measured], styles)
    failed = [place(trial) for trial in having if trial["state"] == "FAIL"]
    _failures(axes, failed)
    best = table.best
    if best and best[value.path] is not None:
        axes.plot(place(best), best["value"], "*", color="black", markersize=12, markerfacecolor="white", zorder=5)
    axes.set(xlabel=value.label, ylabel=table.objective.label)
    axes.yaxis.set_major_formatter(table.objective.tick)
    if len(styles) > 1:
        _legend(canvas, table, styles, best=False, pruned=False)
    alt = f"{table.objective.title} of the trials by {value.path}; the table of trials has the values."
    return Figure(to_png(canvas), alt, value.path)


def spread(trial: Trial, width: float) -> float:
    """Return a small shift that keeps trials of one category apart: evenly from -width/2 to width/2 by number."""
    return float(width * ((trial["number"] * 0.618034) % 1 - 0.5))


def _best_so_far(trials: Sequence[Trial]) -> list[float]:
    best, steps = -1.0, []
    for trial in trials:
        best = max(best, trial["value"])
        steps.append(best)
    return steps


def _marks(axes: Axes, trials: Sequence[Trial], x: Sequence[float], styles: Mapping[str, _Style]) -> None:
    size = 5 if len(trials) <= 100 else 3.5
    for state, fill, alpha, order in (("PRUNED", "none", 0.6, 2), ("COMPLETE", None, 0.85, 3)):
        for space, style in styles.items():
            some = [number for number, trial in enumerate(trials) if (trial["state"], trial["space"]) == (state, space)]
            axes.plot(
                [x[number] for number in some],
                [trials[number]["value"] for number in some],
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
    table: SearchTable,
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
        states = {trial["state"] for trial in table.measured}
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
