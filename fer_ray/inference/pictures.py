"""Convert images from a notebook (paths, bytes, Pillow images, arrays) to a network's input, as scoring does."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fer_ray.errors import DataError
from fer_ray.images.decode import decode, decode_pillow
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.image_files import FileError, read_file

_DTYPES = ("u1", "u2", "b1")
Picture = Path | str | bytes | Image.Image | np.ndarray
"""A file's path, an image file's bytes, a Pillow image, or an array.

An array holds H × W grey pixels, or uint8 H × W × 3 RGB or H × W × 4 RGBA pixels. White is 255 in uint8, 65,535 in
uint16 and True in bool. Palette and CMYK arrays are not supported, and a photo's EXIF orientation must be applied.

A large JPEG (four times the network's size or more) is shrunk during decoding, if it is given as a path, bytes or an
unloaded Pillow image. Its pixels then differ slightly from those of an array or a loaded Pillow image.
"""


def square_greys(pictures: Picture | Iterable[Picture], size: int) -> np.ndarray:
    """Return pictures as uint8, n × size × size, grey, 0 black to 255 white; ``DataError`` names what can't be read."""
    if isinstance(pictures, (Path, str, bytes, Image.Image, np.ndarray)) or not isinstance(pictures, Iterable):
        pictures = [pictures]
    squares, problems = [], list[str]()
    with quiet_decoders():
        for number, picture in enumerate(pictures):
            try:
                squares.append(_square(picture, size))
            except (FileError, ValueError) as error:
                which = f"{picture}: " if isinstance(picture, (Path, str)) else ""
                problems.append(f"image {number}: {which}{error}")
    if problems:
        raise DataError(problems)
    return np.stack(squares) if squares else np.empty((0, size, size), np.uint8)


def _square(picture: Picture, size: int) -> np.ndarray:
    if isinstance(picture, (Path, str)):
        picture = read_file(str(Path(picture).expanduser()).encode("utf-8", "surrogateescape"))
    if isinstance(picture, bytes):
        return decode(picture, size).pixels
    return decode_pillow(picture if isinstance(picture, Image.Image) else _as_pillow(np.asarray(picture)), size).pixels


def _as_pillow(array: np.ndarray) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    known = (1, 2, 3, 4) if array.dtype == np.uint8 else (1,)
    if not array.size or array.ndim not in (2, 3) or channels not in known or array.dtype.str[1:] not in _DTYPES:
        raise ValueError(
            f"{array.dtype} of shape {array.shape}: expected a path, the bytes of an image file, a Pillow image or an"
            " array (uint8 from 0 to 255, height × width grey or height × width × 3 RGB). If white is 1, convert it by"
            " (255 * array).astype('uint8')."
        )
    return Image.fromarray(array.squeeze(2) if array.ndim == 3 and channels == 1 else array)
