"""Small charts for pages: drawn by matplotlib at a width that a phone shows whole, as PNG bytes."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

_INCHES = (4.6, 3.3)
_DPI = 150


def new_chart(height: float = _INCHES[1]) -> tuple[Canvas, Axes]:
    """Return a canvas of a phone's width and its axes; ``height`` in inches."""
    canvas = Canvas(figsize=(_INCHES[0], height), layout="constrained")
    axes = canvas.subplots()
    style_axes(axes)
    return canvas, axes


def style_axes(axes: Axes) -> None:
    """Leave out the frame's upper and right side, and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def to_png(canvas: Canvas) -> bytes:
    """Return a drawn canvas as a PNG."""
    out = io.BytesIO()
    canvas.savefig(out, dpi=_DPI, format="png")
    return out.getvalue()
