"""A Pillow image of any mode as upright grey pixels, transparent pixels white."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

SAVE_IT = "save it with 8 or 16 unsigned bits a sample"
_NO_WHITE = f"without a defined white: {SAVE_IT}"
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF


def to_grey(image: Image.Image) -> np.ndarray:
    """Return uint8, rows × columns, 0 black to 255 white.

    Raises:
        ValueError: samples without a defined white: signed, 32-bit or floating-point; or 16-bit samples that are all at
            most a sixteenth of white, so they may have fewer bits.
        OSError: the image can't be loaded; Pillow raises other exceptions too.
    """
    upright = ImageOps.exif_transpose(image)
    tiff_tags = getattr(image, "tag_v2", {})
    if not {2, 3}.isdisjoint(tiff_tags.get(_SAMPLE_FORMAT, ())):
        raise ValueError(f"signed or floating-point samples, {_NO_WHITE}")
    if image.mode[0] in "IF":
        return _scaled(upright, _white(image, tiff_tags), inverted=tiff_tags.get(_PHOTOMETRIC) == 0)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    if upright.mode in ("L", "1"):
        return np.asarray(upright.convert("L"))
    return np.asarray(cv2.cvtColor(np.asarray(upright.convert("RGB")), cv2.COLOR_RGB2GRAY))


def _white(image: Image.Image, tiff_tags: Mapping[int, Any]) -> int:
    if image.mode.startswith("I;16"):
        return int(2 ** tiff_tags.get(_BITS, (16,))[0]) - 1
    if image.mode == "I" and image.format == "PPM":  # Pillow scales these to 16 bits
        return 65535
    raise ValueError(f"{'floating-point' if image.mode == 'F' else '32-bit'} samples, {_NO_WHITE}")


def _scaled(image: Image.Image, white: int, inverted: bool) -> np.ndarray:
    samples = np.asarray(image).astype(np.int32)
    if 0 < (largest := int(samples.max())) <= white // 16:
        raise ValueError(
            f"samples up to {largest:,}, where {white:,} is white, so they may have fewer bits: scale them so that"
            f" {white:,} is white, or save it with 8 bits"
        )
    grey = ((abs(white * inverted - samples) * 255 + white // 2) // white).astype(np.uint8)
    grey[samples == image.info.get("transparency", -1)] = 255
    return grey
