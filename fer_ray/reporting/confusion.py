"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def save_confusion(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Draw counts in cells and below each its share of the row, by which the cell is coloured, as a PNG.

    Args:
        counts: int, K × K, true label first.
        names: of the K labels.
        title: a line above.
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
