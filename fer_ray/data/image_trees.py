"""Trees of image files, ``SPLIT/LABEL/image`` or ``LABEL/image``, as a folder or inside a .zip.

Folder names decide, at any depth: the deepest folder that is called like an emotion gives the label, the deepest one
that is called like a split gives the split, and without one the split is ``train``. In the Kaggle "msambare" tree both
later splits of FER-2013 lie in ``test/``; there the file name tells them apart. A .zip is read without unpacking it.
"""

import functools
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from fer_ray.data.images import ImageError, decode, quiet_decoders
from fer_ray.data.rows import RowBuilder, Source, source_missing
from fer_ray.emotions import EMOTIONS, label_of
from fer_ray.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "publictest": "validation",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
"""Names of splits in the wild, in lower case, and the split each means."""

Piece = dict[str, Any]
"""A row of the manifest: ``path``, ``split``, ``label``, ``problem``, and for a .zip where the bytes lie."""

_OFFICIAL_NAME = re.compile(r"(PublicTest|PrivateTest)_\d+\.\w+$")
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_TASK_FILES = 1024  # some hundredths of a second of decoding at 48 × 48, and some MB of pixels
_RESPLIT = {"train": 28_821, "validation": 7_066}
_LOCAL_HEADER = 30  # bytes of a .zip member's own header, before its name and extra field
_MEMBER_LIMIT = 1 << 30  # no image file is larger; a member that claims to be would fill the memory


class Place(NamedTuple):
    """What a file's place in a tree says about it; ``problem`` says why it can't be a row of the dataset."""

    split: str
    label: int | None
    problem: str | None = None


def place_of(path: str) -> Place | None:
    """Return what a file's path in the tree says, or None for a file that isn't meant as an image."""
    *folders, name = PurePosixPath(path).parts
    if name.startswith(".") or any(part.lower() in _JUNK for part in (*folders, name)):
        return None
    splits = [SPLIT_NAMES[folder.lower()] for folder in folders if folder.lower() in SPLIT_NAMES]
    split = splits[-1] if splits else "train"
    official = _OFFICIAL_NAME.match(name)
    if official and split != "train":
        split = SPLIT_NAMES[official[1].lower()]
    for folder in reversed(folders):
        label = label_of(folder)
        if label is not None:
            return Place(split, label)
    if PurePosixPath(name).suffix.lower() not in _IMAGE_SUFFIXES:
        return None
    return Place(split, None, f"none of its folders is named after an emotion: {', '.join(EMOTIONS)}")


def open_folder(path: Path) -> Source:
    """Return a folder of images as a source.

    Raises:
        DataError: the folder holds no image in a folder named after an emotion, or can't be listed.
    """
    listed = ({"path": name} for name in _walk(path))
    return _tree("folder", path, listed, functools.partial(_read, path, _folder_loader))


def open_zip(path: Path) -> Source:
    """Return a .zip of images as a source. A single root folder that is named as the .zip is no part of the ids.

    Raises:
        DataError: the file is damaged, or holds no image in a folder named after an emotion.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not readable as a .zip: {error}. Copy or download it again.") from error
    root = f"{path.stem}/"
    cut = len(root) if all(name.startswith(root) for name in members) else 0
    listed = (
        {
            "path": name[cut:],
            "offset": member.header_offset,
            "packed": member.compress_size,
            "length": member.file_size,
            "method": -1 if member.flag_bits & 1 else member.compress_type,
            "crc": member.CRC,
        }
        for name, member in members.items()
    )
    return _tree("zip", path, listed, functools.partial(_read, path, _zip_loader))


def _tree(format: str, path: Path, listed: Iterable[Piece], read: Callable[[pa.Table, int], pa.Table]) -> Source:
    files = sorted(listed, key=lambda piece: str(piece["path"]))
    pieces = [piece | place._asdict() for piece in files if (place := place_of(piece["path"]))]
    if all(piece["problem"] for piece in pieces):
        examples = ", ".join(piece["path"] for piece in files[:3])
        holds = f"{len(files):,} file(s) such as {examples}, none" if files else "no files, so none"
        raise DataError(
            f"{path}: holds {holds} in a folder named after an emotion. Expected SPLIT/LABEL/image or LABEL/image at"
            f" any depth, with LABEL one of {', '.join(EMOTIONS)}."
        )
    splits = dict(Counter(piece["split"] for piece in pieces))
    notes = ["28,821 and 7,066 images: this is not the official split, its figures don't compare with published ones."]
    return Source(
        format=format,
        name=str(path),
        manifest=[_manifest(pieces[at : at + _TASK_FILES]) for at in range(0, len(pieces), _TASK_FILES)],
        read=read,
        total=len(pieces),
        notes=notes if splits == _RESPLIT else [],
    )


def _manifest(pieces: list[Piece]) -> pa.Table:
    schema = {"path": pa.string(), "split": pa.string(), "label": pa.int8(), "problem": pa.string()}
    places = {name: pa.int64() for name in pieces[0] if name not in schema}
    return pa.Table.from_pylist(pieces, schema=pa.schema(schema | places))


def _walk(root: Path) -> Iterator[str]:
    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename}: can't be listed: {error.strerror}.") from error

    for folder, folders, names in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            yield Path(folder, name).relative_to(root).as_posix()


Loader = Callable[[Piece], bytes]


def _read(root: Path, opener: Callable[[Path], Any], pieces: pa.Table, size: int) -> pa.Table:
    if not root.exists():
        return source_missing(str(root), size)
    rows = RowBuilder(size)
    with opener(root) as load, quiet_decoders():
        for piece in pieces.to_pylist():
            _read_one(root, load, piece, rows)
    return rows.table()


def _read_one(root: Path, load: Loader, piece: Piece, rows: RowBuilder) -> None:
    id, path = piece["path"], f"{root}/{piece['path']}"
    if piece["problem"]:
        rows.reject(id, path, piece["problem"])
        return
    try:
        image = decode(load(piece), rows.size)
    except ImageError as error:
        rows.reject(id, path, str(error))
    except _ReadError as error:
        rows.reject(id, path, f"unreadable: {error}")
    else:
        rows.add(id, path, piece["split"], piece["label"], image.pixels, image.width, image.height)


class _ReadError(Exception):
    """A file whose bytes can't be had."""


@contextmanager
def _folder_loader(root: Path) -> Iterator[Loader]:
    def load(piece: Piece) -> bytes:
        try:
            return Path(root, piece["path"]).read_bytes()
        except OSError as error:
            raise _ReadError(error.strerror) from error

    yield load


@contextmanager
def _zip_loader(path: Path) -> Iterator[Loader]:
    """Read members by their place in the file: listing a .zip anew in each task would cost more than decoding."""
    with path.open("rb") as file:

        def load(piece: Piece) -> bytes:
            file.seek(piece["offset"])
            header = file.read(_LOCAL_HEADER)
            file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
            return _unpack(file.read(piece["packed"]), piece)

        yield load


def _unpack(packed: bytes, piece: Piece) -> bytes:
    if piece["length"] > _MEMBER_LIMIT:
        raise _ReadError(f"unpacks to {piece['length']:,} bytes")
    if piece["method"] == zipfile.ZIP_STORED:
        data = packed
    elif piece["method"] == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, piece["length"] + 1)
        except zlib.error as error:
            raise _ReadError(f"damaged in the .zip ({error})") from error
    elif piece["method"] < 0:
        raise _ReadError("encrypted in the .zip")
    else:
        raise _ReadError(f".zip compression method {piece['method']}; known are stored and deflated")
    if len(data) != piece["length"] or zlib.crc32(data) != piece["crc"]:
        raise _ReadError("damaged in the .zip (its checksum differs)")
    return data
