"""Draw the pictures of an evaluation: confusion matrix and reliability diagram."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
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
    for (above, below), (name, bins) in zip(grid.T, panels.items(), strict=True):
        middles, width = [(one.low + one.high) / 2 for one in bins], 0.9 / len(bins)
        above.bar(middles, [one.accuracy or 0 for one in bins], width, label="accuracy")
        above.plot([0, 1], [0, 1], "--", color="tab:red", linewidth=1, label="confidence = accuracy")
        above.set(ylim=(0, 1.02), xlim=(0, 1))
        above.set_title(f"{name}: ECE {expected_calibration_error(bins):.3f}", fontsize=10)
        bars = below.bar(middles, [one.rows for one in bins], width, color="tab:gray")
        below.bar_label(bars, [f"{one.rows:,}" if one.rows else "" for one in bins], fontsize=6)
        below.set_xlabel("confidence (highest probability)")
        below.margins(y=0.15)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("images")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    canvas.savefig(path, dpi=FILE_DPI)


def save_confusion(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of a confusion matrix: in each cell the count and its share of the row, coloured by the share.

    Args:
        counts: int, K × K, true label first.
        names: the K labels in the order of the counts.
        title: line at the top.
        path: the PNG to write.
    """
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    side = 0.8 * len(names)
    canvas, axes = new_chart(side + 1.2, side + 2.0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]:,}\n{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.5 else "black")
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)])
    axes.set(xlabel="predicted", ylabel="label (images)", title=title)
    canvas.colorbar(picture, ax=axes, label="share of the label's images", fraction=0.045).outline.set_visible(False)
    canvas.savefig(path, dpi=FILE_DPI)
