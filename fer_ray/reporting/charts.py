"""Small charts for pages: drawn with matplotlib, no wider than a phone's screen, as PNG bytes."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image

_INCHES = (4.6, 3.3)
_DPI = 150


def new_chart(height: float = _INCHES[1]) -> tuple[Canvas, Axes]:
    """Create a canvas as wide as a phone's screen, with one pair of axes; ``height`` in inches."""
    canvas = Canvas(figsize=(_INCHES[0], height), layout="constrained")
    axes = canvas.subplots()
    style_axes(axes)
    return canvas, axes


def style_axes(axes: Axes) -> None:
    """Remove the top and right lines of the frame and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def to_png(canvas: Canvas, colours: int | None = None) -> bytes:
    """Return the canvas as PNG bytes.

    Args:
        canvas: already drawn on.
        colours: largest number of colours, which keeps a chart of hundreds of lines small; None for no limit.
    """
    out = io.BytesIO()
    canvas.savefig(out, dpi=_DPI, format="png")
    if colours is None:
        return out.getvalue()
    few = io.BytesIO()
    Image.open(out).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(few, format="png", optimize=True)
    return few.getvalue()
