"""The predictions that were most sure and wrong, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

_COLUMNS = 6


def save_mistakes(images: np.ndarray, captions: Sequence[str], title: str, path: Path) -> None:
    """Draw images in rows of six, each above its caption, as a PNG.

    Args:
        images: uint8, n × H × W, n > 0.
        captions: n of one or two lines.
        title: a line above.
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
