"""Draw the pictures of an evaluation: confusion matrix and reliability diagram."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from fer_ray.inference.calibration import ReliabilityBin, expected_calibration_error
from fer_ray.reporting.charts import FILE_DPI, new_chart


def save_reliability(panels: Mapping[str, Sequence[ReliabilityBin]], title: str, path: Path) -> None:
    """Write a PNG of reliability diagrams side by side, with the number of images in each bin below.

    The diagram is figure 4 of Guo et al. 2017 (arXiv 1706.04599). Confidence equals accuracy on the diagonal;
    predictions below it are over-confident.

    Args:
        panels: title to bins, one or more.
        title: line at the top.
        path: the PNG to write.
    """
    canvas = Canvas(figsize=(4.2 * len(panels), 5.2), layout="constrained")
    canvas.suptitle(title)
    grid = canvas.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for number, (name, bins) in enumerate(panels.items()):
        above, below = grid[:, number]
        _draw_accuracy(above, bins)
        above.set_title(f"{name}: ECE {expected_calibration_error(bins):.3f}", fontsize=10)
        middles, width = [(one.low + one.high) / 2 for one in bins], bins[0].high - bins[0].low
        bars = below.bar(middles, [one.rows for one in bins], 0.9 * width, color="tab:gray")
        below.bar_label(bars, [f"{one.rows:,}" if one.rows else "" for one in bins], fontsize=6)
        below.set(xlabel="confidence (highest probability)", xlim=(0, 1))
        below.margins(y=0.15)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("images")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    canvas.savefig(path, dpi=FILE_DPI)


def _draw_accuracy(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    points = [((one.low + one.high) / 2, one.confidence, one.accuracy) for one in bins if one.rows]
    middles, confidences, accuracies = zip(*points, strict=True)
    axes.bar(middles, accuracies, 0.9 * (bins[0].high - bins[0].low), color="tab:blue", label="accuracy")
    label = "accuracy at the mean confidence"
    axes.plot(confidences, accuracies, "o-", color="black", markersize=3, linewidth=0.8, label=label)
    axes.plot([0, 1], [0, 1], "--", color="tab:red", linewidth=1, label="confidence = accuracy")
    axes.set_ylim(0, 1.02)


def save_confusion(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of a confusion matrix: in each cell the count and its share of the row, coloured by the share.

    Args:
        counts: int, K × K, true label first.
        names: the K labels in the order of the counts.
        title: line at the top.
        path: the PNG to write.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = 0.8 * len(names)
    canvas, axes = new_chart(side + 1.2, side + 2.0)
    axes.grid(False)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row - 0.12, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)
        share = f"{shares[row, column]:.0%}" if totals[row, 0] else "–"
        axes.text(column, row + 0.22, share, ha="center", va="center", color=colour, fontsize=7)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{name} ({total:,})" for name, total in zip(names, totals[:, 0], strict=True)])
    axes.set(xlabel="predicted", ylabel="label (images)", title=title)
    axes.spines[:].set_visible(False)
    bar = canvas.colorbar(picture, ax=axes, label="share of the label's images", fraction=0.045)
    bar.outline.set_visible(False)
    canvas.savefig(path, dpi=FILE_DPI)
