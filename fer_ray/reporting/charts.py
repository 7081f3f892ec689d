"""Draw charts with matplotlib: as PNG bytes as wide as a phone's screen, or as files."""

import io

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
