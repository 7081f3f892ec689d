"""One face in many encodings, each with the array that shows what it means."""

import io
import struct

import cv2
import numpy as np
from inputs import encoded
from PIL import Image

from fer_ray.sources.synthetic import synthetic_faces


def tiff(
    samples: np.ndarray, *, bits: int | None = None, white: int = 1, big_endian: bool = False, format: int = 1
) -> bytes:
    """Return a grey TIFF without compression, of which Pillow can't write every kind.

    ``white`` is 0 where the least sample is white; ``format`` is 1 for unsigned, 2 for signed, 3 for floating-point
    samples (H × W, 0 or 1 with 1 bit).
    """
    bits, order = bits or samples.dtype.itemsize * 8, ">" if big_endian else "<"
    if bits == 1:
        data = np.packbits(samples.astype(bool), axis=1).tobytes()
    else:
        data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    height, width = samples.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in (tags | {339: format}).items()]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    header = b"MM\0*" if big_endian else b"II*\0"
    return header + struct.pack(f"{order}I", 8 + len(data)) + data + directory


GREY = synthetic_faces(1, seed=0)[0][0]
"""uint8, 48 × 48."""
COLOUR = np.stack([GREY, (GREY * 0.8).astype(np.uint8) + 20, cv2.flip(GREY, 0)], axis=2)
"""uint8, 48 × 48 × 3."""
_DEEP = GREY.astype(np.uint16) * 257
_ALPHA = np.dstack([COLOUR, np.where(np.arange(48) < 20, 60, 255).astype(np.uint8) * np.ones((48, 1), np.uint8)])
_ON_WHITE = np.asarray(Image.alpha_composite(Image.new("RGBA", (48, 48), "white"), Image.fromarray(_ALPHA)))
_INKED = Image.fromarray(COLOUR).convert("CMYK")
_FEW = Image.fromarray(COLOUR).quantize(64)
_KEYED = np.asarray(_FEW.convert("RGBA")).copy()
_KEYED[np.asarray(_FEW) == 3] = 255
_TURN = Image.Exif()
_TURN[0x0112] = 6  # a quarter turn clockwise
_LYING = np.ascontiguousarray(np.rot90(COLOUR))
_PGM = np.rint(GREY / 255 * 1023).astype(np.uint16)


def _read(data: bytes) -> np.ndarray:
    """Return what Pillow decodes, as losing encodings mean just that."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


_JPEG = encoded(COLOUR, "JPEG", quality=90)
_TURNED_JPEG = encoded(_LYING, "JPEG", quality=90, exif=_TURN)
_CMYK_JPEG = encoded(_INKED, "JPEG", quality=95)

ENCODINGS: dict[str, tuple[bytes, np.ndarray]] = {
    "JPEG, colour": (_JPEG, _read(_JPEG)),
    "JPEG, turned by EXIF": (_TURNED_JPEG, np.rot90(_read(_TURNED_JPEG), 3)),
    "JPEG, CMYK": (_CMYK_JPEG, _read(_CMYK_JPEG)),
    "PNG, colour": (encoded(COLOUR), COLOUR),
    "PNG, turned by EXIF": (encoded(_LYING, exif=_TURN), COLOUR),
    "PNG, transparent": (encoded(_ALPHA), _ALPHA),
    "PNG, transparent, laid on white": (encoded(_ALPHA), _ON_WHITE),
    "PNG, palette": (encoded(_FEW), np.asarray(_FEW.convert("RGB"))),
    "PNG, palette with a transparent shade": (encoded(_FEW, transparency=3), _KEYED),
    "PNG, 16 bits": (encoded(_DEEP), _DEEP),
    "PNG, 16 bits as 8": (encoded(_DEEP), GREY),
    "PNG, 1 bit": (encoded(Image.fromarray(GREY > 120)), GREY > 120),
    "GIF, two frames": (encoded(GREY, "GIF", save_all=True, append_images=[Image.new("L", (48, 48))]), GREY),
    "WebP, turned by EXIF": (encoded(_LYING, "WEBP", lossless=True, exif=_TURN), COLOUR),
    "TIFF, CMYK": (encoded(_INKED, "TIFF"), np.asarray(_INKED.convert("RGB"))),
    "TIFF, 8 bits, least is white": (tiff(255 - GREY, white=0), GREY),
    "TIFF, 1 bit, least is white": (tiff(GREY <= 120, bits=1, white=0), GREY > 120),
    "TIFF, 16 bits, big-endian": (tiff(_DEEP, big_endian=True), _DEEP),
    "TIFF, 16 bits, least is white": (tiff(65535 - _DEEP, white=0), _DEEP),
    "PGM, 1023 is white": (b"P5 48 48 1023\n" + _PGM.astype(">u2").tobytes(), GREY),
}
"""An image file's bytes by what it is, and pixels that mean the same."""

UNDEFINED: dict[str, bytes] = {
    "32 bits, to 255": tiff(GREY.astype(np.uint32)),
    "32 bits, signed": tiff(GREY.astype(np.int32), format=2),
    "16 bits, signed": tiff(GREY.astype(np.int16) * 128, format=2),
    "floating point, to 1": tiff((GREY / 255).astype(np.float32), format=3),
    "PNG, 16 bits, to 255": encoded(GREY.astype(np.uint16)),
    "16 bits, to 4,095": tiff(np.rint(GREY / 255 * 4095).astype(np.uint16)),
    "portable float map": b"Pf\n48 48\n-1.0\n" + np.flipud(GREY / 255).astype("<f4").tobytes(),
}
"""Image files whose white nothing defines, so that any picture of them would be a guess."""
