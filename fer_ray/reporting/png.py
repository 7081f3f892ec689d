"""Pixels as PNG bytes, for pages and for files that hold pictures."""

import io

import numpy as np
from PIL import Image


def png_of(pixels: np.ndarray) -> bytes:
    """Return a grey picture (uint8, H × W) as a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()
