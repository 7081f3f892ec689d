"""Small charts for pages: drawn by matplotlib at a width that a phone shows whole, as PNG bytes."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image

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


def to_png(canvas: Canvas, colours: int | None = None) -> bytes:
    """Return a drawn canvas as a PNG; with so many colours alone, where hundreds of lines would make a large file."""
    out = io.BytesIO()
    canvas.savefig(out, dpi=_DPI, format="png")
    if colours is None:
        return out.getvalue()
    few = io.BytesIO()
    Image.open(out).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(few, format="png", optimize=True)
    return few.getvalue()
