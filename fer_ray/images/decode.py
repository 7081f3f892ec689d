"""The decoder of prepare and score: an image file's bytes to grey pixels.

Only the content of a file counts, not its name. OpenCV decodes JPEG and plain PNG, measured 2 to 10 times as fast as
Pillow on faces of 48 to 1,024 pixels; a large JPEG is shrunk while decoding. Pillow decodes BMP, GIF, TIFF, WebP, AVIF,
JPEG 2000, PNM and the rarer kinds of JPEG and PNG.
"""

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from fer_ray.images.decoder_warnings import decode_noticing
from fer_ray.images.image_files import FileError, FileProblem


def png_of(pixels: np.ndarray) -> bytes:
    """Encode grey pixels (uint8, H × W) as PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


MAX_PIXELS = 80_000_000
"""The limit for the pixels of an image, by its header."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_PILLOW_FORMATS = ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]  # none of them starts another program
_PILLOW_FORMATS += [name for name, feature in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")) if features.check(feature)]
_NOT_IMAGES = {  # by their first bytes
    b"PK\x03\x04": "a .zip archive: name it as an INPUT of its own to score its images",
    b"PAR1": "a Parquet file: name it as an INPUT of its own to score its images",
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing, which has no pixels: render it first",
    b"<?xml": "an XML document, such as an SVG drawing, which has no pixels: render it first",
}
_HEIF = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")
_LARGE = 16_000_000  # pixels
_SAVE_IT = "save it with 8 or 16 unsigned bits a sample"
_NO_WHITE = f"without a defined white: {_SAVE_IT}"
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF
_PILLOW_RAISES = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError)
_REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: cv2.IMREAD_GRAYSCALE,
}
warnings.filterwarnings("ignore", module="PIL")  # of damage and of many pixels: both are errors here

_one_large = threading.Lock()
"""Held while an image of more than ``_LARGE`` pixels is decoded: several at once could fill the memory."""


class ImageError(FileError):
    """An image can't be decoded."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image; width and height are those of the upright image before resizing."""

    pixels: np.ndarray  # uint8, rows × columns, 0 black to 255 white
    width: int
    height: int


def decode(data: bytes, size: int | None = None, shorter_side: int | None = None) -> DecodedImage:
    """Decode an image file of any common format to grey.

    Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as in a JPEG's luma. 16-bit samples are scaled to 8 bits,
    transparent pixels become white, the first frame of an animation counts, and the EXIF orientation is applied.
    Samples without a defined white are refused: signed, 32-bit and floating-point samples, and 16-bit samples that are
    all at most a sixteenth of white, because they may have fewer bits.

    Args:
        data: a file's bytes.
        size: side of the square to resize to, by area when shrinking and bilinear when enlarging, without keeping the
            aspect ratio; None keeps the size.
        shorter_side: pixels that the shorter side needs at least: a larger JPEG is decoded at a half, a quarter or an
            eighth of its size. None means twice ``size``, or without ``size`` the full size.

    Raises:
        ImageError: the image can't be decoded.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    suffices = shorter_side if size is None else shorter_side or 2 * size
    if data.startswith(_JPEG):
        return _resized(_decode_jpeg(data, suffices), size)
    return _resized(_decode_png(data) if data.startswith(_PNG) else _decode_other(data), size)


def decode_pillow(image: Image.Image, size: int | None = None) -> DecodedImage:
    """Convert a Pillow image to grey by the rules of ``decode``, errors included; the current frame counts.

    A JPEG that Pillow hasn't loaded yet is decoded from its file. A large JPEG that is loaded already gives slightly
    other pixels, because it isn't shrunk while decoding.
    """
    if isinstance(image, ImageFile.ImageFile) and image.tile:  # not loaded yet
        if image.fp is None or image.fp.closed:
            raise ImageError("undecodable", "the Pillow image was closed before loading: pass it while it is open")
        if image.format in ("JPEG", "MPO") and image.tell() == 0:
            image.fp.seek(0)
            return decode(image.fp.read(), size)
    return _resized(_grey_of(image), size)


def _resized(image: DecodedImage, size: int | None) -> DecodedImage:
    return image if size is None else DecodedImage(resize(image.pixels, size), image.width, image.height)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize grey pixels (uint8, H × W) to a square, by area when shrinking and bilinear when enlarging."""
    height, width = pixels.shape
    if max(height, width) > size:
        pixels = cv2.resize(pixels, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if pixels.shape != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    return pixels


class _JpegHeader(NamedTuple):
    width: int
    height: int
    components: int
    scan: int  # offset of the first scan


def _decode_jpeg(data: bytes, suffices: int | None) -> DecodedImage:
    header = _jpeg_header(data)
    _check_pixels(header.width, header.height)
    # Inside a scan FF is escaped, so this is an end marker. libjpeg itself fills a missing rest with grey.
    if data.rfind(b"\xff\xd9", header.scan) < 0:
        raise ImageError("truncated", "the JPEG has no end marker")
    shrink = next(s for s in _REDUCED if s == 1 or (suffices and min(header[:2]) >= s * suffices))
    # At full size the colours are decoded, for exactly the pixels that Pillow gives; luma is rounded differently.
    in_colour = shrink == 1 and header.components == 3
    with _alone_if_large(header.width * header.height // shrink**2):
        pixels, warning = decode_noticing(_opencv, data, cv2.IMREAD_COLOR if in_colour else _REDUCED[shrink])
    if warning:
        raise ImageError("damaged", f"the decoder reports: {warning}")
    if pixels is None or header.components not in (1, 3):  # CMYK: Pillow knows Adobe's inversion
        return _decode_other(data)
    width, height = header.width, header.height
    if pixels.shape != (-(-height // shrink), -(-width // shrink)):  # EXIF: a quarter turn
        width, height = height, width
    return DecodedImage(pixels, width, height)


def _jpeg_header(data: bytes) -> _JpegHeader:
    """Read the segments up to the first scan (ITU-T T.81, annex B)."""
    frame: tuple[int, int, int] | None = None
    at = 2
    while 0 <= at <= len(data) - 4:
        marker = data[at + 1]
        if data[at] != 0xFF:  # stray bytes between segments: decoders skip them too
            at = data.find(b"\xff", at)
            continue
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # padding, and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            big = int.from_bytes
            frame = big(data[at + 7 : at + 9], "big"), big(data[at + 5 : at + 7], "big"), data[at + 9]
        if marker == 0xDA and frame:
            return _JpegHeader(*frame, scan=at)
        if marker in (0xD9, 0xDA):
            raise ImageError("undecodable", "the JPEG has no frame header")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ImageError("truncated", "the JPEG ends inside its header")


def _decode_png(data: bytes) -> DecodedImage:
    if len(data) < 33:
        raise ImageError("truncated", "the PNG ends inside its header")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour = data[24], data[25]
    _check_pixels(width, height)
    end = data.rfind(b"IEND")
    if end < 0 or len(data) < end + 8:  # the chunk's name and checksum
        raise ImageError("truncated", "the PNG has no end chunk")
    plain = depth == 8 and colour in (0, 2) and b"tRNS" not in data[:4096] and b"eXIf" not in data
    with _alone_if_large(width * height):
        grey = _opencv(data, cv2.IMREAD_COLOR) if plain else None
    return _decode_other(data) if grey is None else DecodedImage(grey, width, height)


def _opencv(data: bytes, flags: int) -> np.ndarray | None:
    try:
        pixels: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # the caller tries Pillow, whose error says more
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels is not None and pixels.ndim == 3 else pixels


def _decode_other(data: bytes) -> DecodedImage:
    if data.startswith(b"RIFF") and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ImageError("truncated", "the file is shorter than its header says")
    Image.init()  # without it Pillow doesn't load its rarer formats
    try:
        with _as_image_errors(), Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
            return _grey_of(image)
    except UnidentifiedImageError:
        _check_tiff(data)
        raise ImageError("not_an_image", _describe(data)) from None
    except Image.DecompressionBombError:
        raise ImageError("too_large", f"far more than the {MAX_PIXELS:,} pixels allowed") from None


@contextlib.contextmanager
def _as_image_errors() -> Iterator[None]:
    """Turn Pillow's exceptions about damaged images into ``ImageError``."""
    try:
        yield
    except UnidentifiedImageError:
        raise
    except (*_PILLOW_RAISES, struct.error) as error:
        text = str(error) or type(error).__name__
        kind: FileProblem = "truncated" if "truncated" in text.lower() else "undecodable"
        raise ImageError(kind, text) from error


def _check_tiff(data: bytes) -> None:
    """Report why Pillow doesn't recognise a TIFF: often its directory, at the end of the file, is cut off."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return
    if int.from_bytes(data[4:8], order) + 2 > len(data):
        raise ImageError("truncated", "the TIFF's directory is beyond its end")
    raise ImageError("undecodable", f"a TIFF with unsupported samples: {_SAVE_IT}")


def _describe(data: bytes) -> str:
    if data[4:12] in _HEIF:
        return "a HEIC photo, which isn't supported: convert it to JPEG"
    if data[257:262] == b"ustar":
        return "a .tar archive: name it as an INPUT of its own to score its images"
    known = next((what for start, what in _NOT_IMAGES.items() if data[:64].lstrip().startswith(start)), None)
    return known or f"not a JPEG, PNG, BMP, GIF, TIFF, WebP, AVIF or PNM image: it starts with {data[:8]!r}"


def _alone_if_large(pixels: int) -> contextlib.AbstractContextManager[object]:
    return _one_large if pixels > _LARGE else contextlib.nullcontext()


def _grey_of(image: Image.Image) -> DecodedImage:
    _check_pixels(*image.size)
    with _as_image_errors(), _alone_if_large(image.width * image.height):
        grey = _to_grey(image)
    return DecodedImage(grey, grey.shape[1], grey.shape[0])


def _check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError("undecodable", f"{width} × {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError("too_large", f"{width} × {height} pixels, more than the {MAX_PIXELS:,} allowed")


def _to_grey(image: Image.Image) -> np.ndarray:
    """Return a Pillow image of any mode as upright grey pixels, uint8, rows × columns, transparent pixels white.

    ``ValueError`` for samples without a defined white, as in ``decode``; Pillow raises other exceptions too.
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
