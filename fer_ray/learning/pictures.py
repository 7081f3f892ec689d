"""Images as people have them in a notebook, brought to what a network takes, as scoring does with files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fer_ray.data.disk import FileError, read_file
from fer_ray.data.images import ImageError, decode, resize
from fer_ray.errors import DataError

Picture = Path | str | bytes | Image.Image | np.ndarray
"""A file's path, an image file's bytes, a Pillow image, or pixels: uint8, H × W grey or H × W × 3 red, green, blue.

A JPEG of more than twice the network's size is shrunk while it is decoded from a path or bytes, which gives slightly
other pixels than shrinking what was decoded whole.
"""


def square_greys(pictures: Picture | Sequence[Picture], size: int) -> np.ndarray:
    """Return pictures as uint8, n × size × size, grey, 0 black to 255 white.

    Raises:
        DataError: some give no picture; all of them at once, by their number.
    """
    several = [pictures] if isinstance(pictures, (Path, str, bytes, Image.Image, np.ndarray)) else pictures
    squares, problems = [], list[str]()
    for number, picture in enumerate(several):
        try:
            squares.append(_square(picture, size))
        except (FileError, ImageError, ValueError, OSError) as error:
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
    pixels = np.asarray(picture.convert("RGB")) if isinstance(picture, Image.Image) else np.asarray(picture)
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or not pixels.size:
        raise ValueError(
            f"{pixels.dtype} of shape {pixels.shape}: a path, the bytes of an image file, a Pillow image or an array is"
            " expected; an array uint8 from 0 to 255, height × width grey or height × width × 3 red, green, blue."
        )
    return resize(pixels, size)
