"""Files of every broken and hostile kind, each with the status that scoring must give it."""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from inputs import encoded
from PIL import Image

from fer_ray.sources.synthetic import synthetic_faces

FACE = synthetic_faces(1, seed=0)[0][0]
JPEG = cv2.imencode(".jpg", FACE)[1].tobytes()
PNG = cv2.imencode(".png", FACE)[1].tobytes()
PICTURE = Image.fromarray(FACE)
BMP = encoded(PICTURE, "BMP")


def png(width: int, height: int, depth: int = 8, colour: int = 0, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"IDAT", body) if body else b"") + chunk(b"IEND", b"")


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        previous = Path.cwd()
        os.chdir(path.parent)  # the address of a socket may not be long
        try:
            server.bind(path.name)
        finally:
            os.chdir(previous)


def deep(path: Path, length: int) -> None:
    """Make a folder with an image somewhere in it whose absolute path has so many characters."""
    previous, left = Path.cwd(), length - len(f"{path}/face.jpg")
    try:
        path.mkdir()
        os.chdir(path)
        while left:
            name = "d" * (min(left, 200) - 1 - (left % 200 == 1))
            Path(name).mkdir()
            os.chdir(name)
            left -= len(name) + 1
        Path("face.jpg").write_bytes(JPEG)
    finally:
        os.chdir(previous)


OTHER = PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("RGB")

CONTENTS: dict[str, tuple[str, bytes]] = {
    # What gives a picture, whatever it is called.
    "plain.jpg": ("ok", JPEG),
    "wrong-suffix.png": ("ok", JPEG),
    "no-suffix": ("ok", PNG),
    "upper.JPEG": ("ok", JPEG),
    "trailing.jpg": ("ok", JPEG + b"<!-- appended -->"),
    "junk-before-segments.jpg": ("ok", JPEG[:2] + b"\xff\xff" + JPEG[3:]),
    "one-pixel.png": ("ok", encoded(PICTURE.resize((1, 1)), "PNG")),
    "strip.png": ("ok", encoded(PICTURE.resize((3000, 1)), "PNG")),
    "animated.png": ("ok", encoded(PICTURE, "PNG", save_all=True, append_images=[OTHER.convert("L")])),
    "animated.webp": ("ok", encoded(PICTURE, "WEBP", save_all=True, append_images=[OTHER.convert("L")])),
    "pages.tiff": ("ok", encoded(PICTURE, "TIFF", save_all=True, append_images=[OTHER.convert("L")])),
    "compressed.tiff": ("ok", encoded(PICTURE, "TIFF", compression="tiff_lzw")),
    "new.avif": ("ok", encoded(PICTURE.convert("RGB"), "AVIF")),
    "new.jp2": ("ok", encoded(PICTURE, "JPEG2000")),
    # What doesn't.
    "empty.jpg": ("empty", b""),
    "one-byte.jpg": ("not_an_image", b"\xff"),
    "zeros.jpg": ("not_an_image", bytes(4096)),
    "noise.jpg": ("not_an_image", np.random.default_rng(0).bytes(4096)),
    "text.png": ("not_an_image", b"a note"),
    "page.jpg": ("not_an_image", b"<!doctype html><title>404</title>"),
    "drawing.svg": ("not_an_image", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "drawing-with-head.svg": ("not_an_image", b'<?xml version="1.0"?><svg/>'),
    "document.pdf.jpg": ("not_an_image", b"%PDF-1.7\n"),
    "postscript.jpg": ("not_an_image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "archive.jpg": ("not_an_image", b"PK\x03\x04" + bytes(100)),
    "tape.jpg": ("not_an_image", bytes(257) + b"ustar\x0000" + bytes(248)),
    "columns.jpg": ("not_an_image", b"PAR1" + bytes(100)),
    "program.jpg": ("not_an_image", b"\x7fELF" + bytes(100)),
    "pickle.jpg": ("not_an_image", b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."),
    "photo.heic": ("not_an_image", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)),
    "half.jpg": ("truncated", JPEG[: len(JPEG) // 2]),
    "magic.jpg": ("truncated", JPEG[:3]),
    "half.png": ("truncated", PNG[: len(PNG) // 2]),
    "header.png": ("truncated", PNG[:20]),
    "half.gif": ("truncated", encoded(PICTURE, "GIF")[:-200]),
    "half.tiff": ("truncated", encoded(PICTURE, "TIFF", compression="tiff_lzw")[:-400]),
    "no-frame.jpg": ("undecodable", b"\xff\xd8\xff\xda\x00\x08" + bytes(20)),
    "no-pixels.png": ("undecodable", png(0, 48)),
    "no-data.png": ("undecodable", png(48, 48)),
    "bad-filter.png": ("undecodable", png(8, 8, body=zlib.compress(b"\x09" * 72))),
    "floats.tiff": ("undecodable", encoded(Image.fromarray(FACE.astype(np.float32)), "TIFF")),
    "bomb.png": ("too_large", png(60_000, 60_000)),
    "bomb-100-megapixels.png": ("too_large", png(10_000, 10_000, body=zlib.compress(bytes(10_001 * 10_000)))),
    "bomb.gif": ("too_large", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + encoded(PICTURE, "GIF")[10:]),
    "bomb.bmp": ("too_large", BMP[:18] + struct.pack("<ii", 100_000, 100_000) + BMP[26:]),
    # Names.
    "new\nline.jpg": ("ok", JPEG),
    "quote\"and'.jpg": ("ok", JPEG),
    "Grüße 表情 😀.jpg": ("ok", JPEG),
    "-dash.jpg": ("ok", JPEG),
    "star*?[].jpg": ("ok", JPEG),
    "%s%n{}.jpg": ("ok", JPEG),
}
MADE: dict[bytes, tuple[str, Callable[[Path], object]]] = {
    b"latin-\xfc.jpg": ("ok", lambda path: path.write_bytes(JPEG)),
    b"surrogate-\xed\xa0\x80.jpg": ("ok", lambda path: path.write_bytes(JPEG)),
    b"dangling.jpg": ("missing", lambda path: path.symlink_to("nowhere")),
    b"circle.jpg": ("unreadable", lambda path: path.symlink_to(path.name)),
    b"pipe.jpg": ("not_a_file", os.mkfifo),
    b"socket.jpg": ("not_a_file", listen),
    b"device.jpg": ("not_a_file", lambda path: path.symlink_to("/dev/zero")),
    b"sparse-1-GiB.jpg": ("too_large", lambda path: (path.touch(), os.truncate(path, 1 << 30))),
}
DEEP = {"deep": ("ok", 4050), "too-deep": ("unreadable", 4200)}  # Linux takes paths of up to 4,095 bytes
assert len(CONTENTS) + len(MADE) + len(DEEP) >= 60
