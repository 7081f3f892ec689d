"""Draw the pictures of an evaluation: confusion matrix, reliability diagram and the most confident mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_ray.inference.calibration import ReliabilityBin, expected_calibration_error


def save_reliability(panels: Mapping[str, Sequence[ReliabilityBin]], title: str, path: Path) -> None:
    """Write a PNG of reliability diagrams side by side, with the number of images in each bin below.

    The diagram is figure 4 of Guo et al. 2017 (arXiv 1706.04599). Confidence equals accuracy on the diagonal;
    predictions below it are over-confident.

    Args:
        panels: title to bins, one or more.
        title: line at the top.
        path: the PNG to write.
    """
    figure = Figure(figsize=(4.2 * len(panels), 5.2), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
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
    figure.savefig(path, dpi=110)


def _draw_accuracy(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    filled = [one for one in bins if one.accuracy is not None and one.confidence is not None]
    middles, width = [(one.low + one.high) / 2 for one in filled], bins[0].high - bins[0].low
    axes.bar(middles, [one.accuracy or 0 for one in filled], 0.9 * width, color="tab:blue", label="accuracy")
    axes.plot(
        [one.confidence or 0 for one in filled],
        [one.accuracy or 0 for one in filled],
        "o-",
        color="black",
        markersize=3,
        linewidth=0.8,
        label="accuracy at the mean confidence",
    )
    axes.plot([0, 1], [0, 1], "--", color="tab:red", linewidth=1, label="confidence = accuracy")
    axes.set_ylim(0, 1.02)


_COLUMNS = 6


def save_mistakes(images: np.ndarray, captions: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of images in rows of six, each with its caption below.

    Args:
        images: uint8, n × H × W, n > 0.
        captions: n texts of one or two lines.
        title: line at the top.
        path: the PNG to write.
    """
    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(1.35 * _COLUMNS, 1.65 * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for number, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if number < len(images):
            axes.imshow(images[number], cmap="gray", vmin=0, vmax=255)
            axes.text(0.5, -0.04, captions[number], transform=axes.transAxes, ha="center", va="top", fontsize=8)
    figure.savefig(path, dpi=110)


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
    figure = Figure(figsize=(side + 2.0, side + 1.2), layout="constrained")
    axes = figure.subplots()
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
    bar = figure.colorbar(picture, ax=axes, label="share of the label's images", fraction=0.045)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110)
