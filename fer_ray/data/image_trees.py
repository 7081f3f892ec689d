"""Trees of image files, ``SPLIT/LABEL/image`` or ``LABEL/image``, as a folder or inside a .zip.

Folder names decide, at any depth: the deepest folder that is called like an emotion gives the label, the deepest one
that is called like a split gives the split, and without one the split is ``train``. In the Kaggle "msambare" tree both
later splits of FER-2013 lie in ``test/``; there the file name tells them apart. A .zip is read without unpacking it.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from fer_ray.data.disk import FileError, list_files, read_file, shown
from fer_ray.data.images import ImageError, decode, quiet_decoders
from fer_ray.data.naming import SPLIT_NAMES
from fer_ray.data.rows import RowBuilder, Source, source_missing
from fer_ray.data.zip_files import list_members, member_loader
from fer_ray.emotions import EMOTIONS, label_of
from fer_ray.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
"""What the names of image files end in, in lower case; in a folder named after an emotion any other file counts too."""

Piece = dict[str, Any]
"""A file of a tree: ``path`` as text, ``problem`` or None, and what its loader needs. In the manifest also ``split``
and ``label``."""

_OFFICIAL_NAME = re.compile(r"(PublicTest|PrivateTest)_\d+\.\w+$")
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_TASK_FILES = 1024  # some hundredths of a second of decoding at 48 × 48, and some MB of pixels
_RESPLIT = {"train": 28_821, "validation": 7_066}


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
    if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        return None
    return Place(split, None, f"none of its folders is named after an emotion: {', '.join(EMOTIONS)}")


def open_folder(path: Path) -> Source:
    """Return a folder of images as a source. Links are followed; a folder that several lead to counts once.

    Raises:
        DataError: the folder holds no image in a folder named after an emotion, or one in it can't be listed.
    """
    unlistable: list[OSError] = []
    root = os.fsencode(path)
    files: list[Piece] = [
        {"path": shown(file[len(root) :].lstrip(b"/")), "problem": None, "file": file}
        for file in list_files([path], unlistable.append)
    ]
    if unlistable:
        raise DataError([f"{shown(error.filename)}: can't be listed: {error.strerror}." for error in unlistable])
    return _tree("folder", path, files, _folder_loader)


def open_zip(path: Path) -> Source:
    """Return a .zip of images as a source. A single root folder that is named as the .zip is no part of the ids.

    Raises:
        DataError: the file is damaged, or holds no image in a folder named after an emotion.
    """
    return _tree("zip", path, list_members(path), member_loader)


Opener = Callable[[Path], Any]
"""Opens a tree: a context manager that gives a function from a piece to its bytes, which may raise ``FileError``."""


def _tree(format: str, path: Path, files: list[Piece], opener: Opener) -> Source:
    pieces = []
    for file in sorted(files, key=lambda file: str(file["path"])):
        if place := place_of(file["path"]):
            problem = file["problem"] or place.problem
            pieces.append(file | {"split": place.split, "label": place.label, "problem": problem})
    if all(piece["label"] is None for piece in pieces):
        examples = ", ".join(file["path"] for file in files[:3])
        holds = f"{len(files):,} file(s) such as {examples}, none" if files else "no files, so none"
        raise DataError(
            f"{path}: holds {holds} in a folder named after an emotion. Expected SPLIT/LABEL/image or LABEL/image at"
            f" any depth, with LABEL one of {', '.join(EMOTIONS)}. An archive inside has to be unpacked first."
        )
    splits = dict(Counter(piece["split"] for piece in pieces))
    notes = ["28,821 and 7,066 images: this is not the official split, its figures don't compare with published ones."]
    return Source(
        format=format,
        name=shown(os.fsencode(path)),
        manifest=[_manifest(pieces[at : at + _TASK_FILES]) for at in range(0, len(pieces), _TASK_FILES)],
        read=functools.partial(_read, path, opener),
        total=len(pieces),
        notes=notes if splits == _RESPLIT else [],
    )


def _manifest(pieces: list[Piece]) -> pa.Table:
    types = {"path": pa.string(), "split": pa.string(), "label": pa.int8(), "problem": pa.string(), "file": pa.binary()}
    return pa.Table.from_pylist(pieces, schema=pa.schema({name: types.get(name, pa.int64()) for name in pieces[0]}))


def _read(root: Path, opener: Opener, pieces: pa.Table, size: int) -> Iterator[pa.Table]:
    if not root.exists():
        yield source_missing(str(root), size)
        return
    rows = RowBuilder(size)
    with opener(root) as load, quiet_decoders():
        for piece in pieces.to_pylist():
            _read_one(root, load, piece, rows)
    yield rows.table()


def _read_one(root: Path, load: Callable[[Piece], bytes], piece: Piece, rows: RowBuilder) -> None:
    id, path = piece["path"], f"{shown(os.fsencode(root))}/{piece['path']}"
    if piece["problem"]:
        rows.reject(id, path, piece["problem"])
        return
    try:
        image = decode(load(piece), rows.size)
    except (ImageError, FileError) as error:
        rows.reject(id, path, str(error))
    else:
        rows.add(id, path, piece["split"], piece["label"], image.pixels, image.width, image.height)


@contextmanager
def _folder_loader(root: Path) -> Iterator[Callable[[Piece], bytes]]:
    del root  # the pieces say where their files are
    yield lambda piece: read_file(piece["file"])
