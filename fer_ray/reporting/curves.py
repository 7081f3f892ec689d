"""Draw loss, accuracy and learning rate by epoch."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_ray.reporting.charts import new_chart, style_axes, to_png
from fer_ray.reporting.html import Figure
from fer_ray.storage.local import write_whole
from fer_ray.training.metrics import Metrics
from fer_ray.training.run_folder import best_epoch


def save_curves(history: Sequence[Metrics], path: Path) -> None:
    """Write a PNG of loss, accuracy, macro-F1 and learning rate by epoch, with the best validation accuracy marked.

    Args:
        history: one entry for each line of ``metrics.jsonl``, at least one.
        path: the PNG to write.
    """
    canvas = Canvas(figsize=(13.5, 3.8), layout="constrained")
    for axes, (title, (draw, _)) in zip(canvas.subplots(1, len(_CURVES)), _CURVES.items(), strict=True):
        draw(axes, history)
        _finish(axes)
        axes.set_title(title)
        style_axes(axes)
    picture = io.BytesIO()
    canvas.savefig(picture, dpi=110)
    write_whole(path, picture.getvalue())


def curve_figures(history: Sequence[Metrics]) -> list[Figure]:
    """Draw the charts of ``save_curves``, each as a figure of its own."""
    figures = []
    for title, (draw, alt) in _CURVES.items():
        canvas, axes = new_chart()
        draw(axes, history)
        _finish(axes)
        figures.append(Figure(to_png(canvas), f"{alt} by epoch; the table of epochs has the values.", title))
    return figures


def accuracy_figure(histories: Mapping[str, Sequence[Metrics]]) -> Figure:
    """Draw validation accuracy by epoch for several runs, given by name."""
    canvas, axes = new_chart()
    for number, (name, history) in enumerate(histories.items()):
        # matplotlib has ten colours; further runs repeat them with other line styles.
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        axes.plot(*_series(history, "validation_accuracy"), style, color=f"C{number % 10}", label=name)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("validation accuracy")
    _finish(axes)
    alt = f"Validation accuracy by epoch of {', '.join(histories)}; the table above has the best value of each."
    return Figure(to_png(canvas), alt, "Validation accuracy")


def _series(history: Sequence[Metrics], key: str) -> tuple[list[float], list[float]]:
    return [line["epoch"] for line in history], [line[key] for line in history]


def _loss(axes: Axes, history: Sequence[Metrics]) -> None:
    axes.plot(*_series(history, "train_loss"), "--", label="train (augmented)")
    axes.plot(*_series(history, "validation_loss"), label="validation")
    axes.set_ylabel("loss")


def _accuracy(axes: Axes, history: Sequence[Metrics]) -> None:
    axes.plot(*_series(history, "train_accuracy"), "--", label="train (augmented)")
    axes.plot(*_series(history, "validation_accuracy"), label="validation")
    axes.plot(*_series(history, "validation_macro_f1"), ":", label="validation macro-F1")
    best = best_epoch(history)
    label = f"best {best['validation_accuracy']:.2%}, epoch {best['epoch']:.0f}"
    axes.plot(best["epoch"], best["validation_accuracy"], "k*", markersize=10, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("accuracy")


def _learning_rate(axes: Axes, history: Sequence[Metrics]) -> None:
    axes.plot(*_series(history, "learning_rate"), color="C4", label="learning rate")
    axes.set_ylabel("learning rate")


def _finish(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for line in axes.lines:
        if line.get_marker() == "None" and np.size(line.get_xdata()) == 1:
            line.set_marker(".")  # a line through one point is invisible
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8)


_CURVES: dict[str, tuple[Callable[[Axes, Sequence[Metrics]], None], str]] = {
    "Loss": (_loss, "Training and validation loss"),
    "Accuracy": (_accuracy, "Training and validation accuracy and macro-F1"),
    "Learning rate": (_learning_rate, "Learning rate"),
}
