"""Draw loss, accuracy and learning rate by epoch."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_ray.reporting.charts import FILE_DPI, new_chart, style_axes, to_png
from fer_ray.reporting.html import Figure
from fer_ray.storage.local import write_whole
from fer_ray.training.run_folder import Metrics, best_epoch

_CURVES = {
    "Loss": {"train_loss": ("--", "train (augmented)"), "validation_loss": ("-", "validation")},
    "Accuracy": {
        "train_accuracy": ("--", "train (augmented)"),
        "validation_accuracy": ("-", "validation"),
        "validation_macro_f1": (":", "validation macro-F1"),
    },
    "Learning rate": {"learning_rate": ("-", "learning rate")},
}
"""Chart to metric to line style and label."""


def save_curves(history: Sequence[Metrics], path: Path) -> None:
    """Write a PNG of loss, accuracy, macro-F1 and learning rate by epoch, with the best validation accuracy marked.

    ``history`` has one entry, or more, for each line of ``metrics.jsonl``.
    """
    canvas = Canvas(figsize=(13.5, 3.8), layout="constrained")
    for axes, title in zip(canvas.subplots(1, len(_CURVES)), _CURVES, strict=True):
        style_axes(axes)
        _draw(axes, title, history)
        axes.set_title(title)
    picture = io.BytesIO()
    canvas.savefig(picture, dpi=FILE_DPI)
    write_whole(path, picture.getvalue())


def curve_figures(history: Sequence[Metrics]) -> list[Figure]:
    """Draw the charts of ``save_curves``, each as a figure of its own."""
    figures = []
    for title in _CURVES:
        canvas, axes = new_chart()
        _draw(axes, title, history)
        figures.append(Figure(to_png(canvas), f"{title} by epoch; the table of epochs has the values.", title))
    return figures


def accuracy_figure(histories: Mapping[str, Sequence[Metrics]]) -> Figure:
    """Draw validation accuracy by epoch for several runs, given by name."""
    canvas, axes = new_chart()
    for number, (name, history) in enumerate(histories.items()):
        # matplotlib has ten colours; further runs repeat them with other line styles.
        _plot(axes, history, "validation_accuracy", ("-", "--", ":", "-.")[number // 10 % 4], name)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("validation accuracy")
    alt = f"Validation accuracy by epoch of {', '.join(histories)}; the table above has the best value of each."
    return Figure(to_png(canvas), alt, "Validation accuracy")


def _draw(axes: Axes, title: str, history: Sequence[Metrics]) -> None:
    for metric, (style, label) in _CURVES[title].items():
        _plot(axes, history, metric, style, label)
    axes.set_ylabel(title.lower())
    if title == "Accuracy":
        best = best_epoch(history)
        label = f"best {best['validation_accuracy']:.2%}, epoch {best['epoch']:.0f}"
        axes.plot(best["epoch"], best["validation_accuracy"], "k*", markersize=10, label=label)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False, fontsize=8)


def _plot(axes: Axes, history: Sequence[Metrics], metric: str, style: str, label: str) -> None:
    epochs, values = [line["epoch"] for line in history], [line[metric] for line in history]
    axes.plot(epochs, values, style, marker="." if len(history) == 1 else None, label=label)  # a point has no line
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
