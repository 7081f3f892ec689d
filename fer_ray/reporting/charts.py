"""Draw charts and grids of faces with matplotlib: as PNG bytes as wide as a phone's screen, or as files."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

_INCHES = (4.6, 3.3)
_DPI, FILE_DPI = 150, 110
"""Dots per inch of charts in pages, and of pictures in files, which are wider."""


def new_chart(height: float = _INCHES[1], width: float = _INCHES[0]) -> tuple[Canvas, Axes]:
    """Create a canvas, by default as wide as a phone's screen, with one pair of axes; sizes in inches."""
    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.subplots()
    style_axes(axes)
    return canvas, axes


def style_axes(axes: Axes) -> None:
    """Remove the top and right lines of the frame and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def to_png(canvas: Canvas) -> bytes:
    """Return the canvas, already drawn on, as PNG bytes."""
    out = io.BytesIO()
    canvas.savefig(out, dpi=_DPI, format="png")
    return out.getvalue()


def save_faces(images: Sequence[np.ndarray], columns: int, file: Path, title: str, row_names: Sequence[str]) -> None:
    """Write a PNG of grey images in rows.

    Args:
        images: n > 0 arrays, uint8, H × W; an empty array leaves its cell empty.
        columns: images in a row.
        file: the PNG to write.
        title: line at the top.
        row_names: one name for each row, drawn at its left.
    """
    rows = len(row_names)
    canvas = Canvas(figsize=(1.2 * columns + 1, 1.2 * rows + 0.35), layout="constrained")
    canvas.suptitle(title, fontsize=10)
    for number, axes in enumerate(canvas.subplots(rows, columns, squeeze=False).flat):
        axes.spines[:].set_visible(False)
        axes.set(xticks=[], yticks=[])
        if images[number].size:
            axes.imshow(images[number], cmap="gray", vmin=0, vmax=255)
        if number % columns == 0:
            axes.set_ylabel(row_names[number // columns], rotation=0, ha="right", va="center", fontsize=9)
    canvas.savefig(file, dpi=FILE_DPI)


def evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of the rows at even distances, or all rows if there are fewer."""
    chosen: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return chosen
