"""Trees of image files, ``SPLIT/LABEL/image`` or ``LABEL/image``, as a folder or inside a .zip.

Folder names decide, at any depth: the deepest folder that is named after an emotion gives the label, or where no folder
of the tree is, the deepest that is a number. The folders' splits are those of ``fer_ray.sources.split_names``; where no
folder says one, the files' names or the root's do, and else the split is ``train``. In the Kaggle "msambare" tree both
later splits of FER-2013 lie in ``test/``; there the file name tells them apart. A .zip is read without unpacking it.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from fer_ray.console.text import amount
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.images.decode import ImageError, decode
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.image_files import FileError, list_files, read_file, shown
from fer_ray.sources.label_names import Naming, is_number, label_key, label_meanings
from fer_ray.sources.raw_rows import RowBuilder, Source, source_missing
from fer_ray.sources.split_names import Place, read_splits, split_of_root, splits_of_places
from fer_ray.sources.zip_files import list_members, member_loader

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
"""What the names of image files end in, in lower case; in a folder named after a label any other file counts too."""

TreeFile = dict[str, Any]
"""A file of a tree: ``path`` as text, ``problem`` or None, and what its loader needs. In the manifest also ``split``
and ``label``."""

_OFFICIAL = {"PublicTest": "validation", "PrivateTest": "test"}  # the first word of FER-2013's file names
_ARCHIVES, _TABLES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}, {".csv", ".tsv", ".parquet"}
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_TASK_FILES = 1024  # some hundredths of a second of decoding at 48 × 48, and some MB of pixels
_RESPLIT = {"train": 28_821, "validation": 7_066}


def open_folder(path: Path, naming: Naming) -> Source:
    """Return a folder of images as a source. Links are followed, but for those to a folder that they lie in.

    Raises:
        DataError: the folder holds no image in a folder named after a label, names don't tell labels or splits, or a
            folder in it can't be listed.
    """
    unlistable: list[OSError] = []
    root = os.fsencode(path)
    files: list[TreeFile] = [
        {"path": shown(file[len(root) :].lstrip(b"/")), "problem": None, "file": file}
        for file in list_files([path], unlistable.append)
    ]
    if unlistable:
        raise DataError([f"{shown(error.filename)}: can't be listed: {error.strerror}." for error in unlistable])
    return _tree("folder", path, files, _folder_loader, naming)


def open_zip(path: Path, naming: Naming) -> Source:
    """Return a .zip of images as a source. A single root folder that is named as the .zip is no part of the ids.

    Raises:
        DataError: as for ``open_folder``, or the file is damaged.
    """
    return _tree("zip", path, list_members(path), member_loader, naming)


def count_images(paths: Iterable[str]) -> int:
    """Count those of the paths that are image files in a folder named after an emotion."""
    label_of = functools.cache(Naming().label_of)
    images = (PurePosixPath(path) for path in paths if _is_image(path) and not is_passed_over(path))
    return sum(any(label_of(label_key(folder)) is not None for folder in image.parts[:-1]) for image in images)


def is_passed_over(path: str) -> bool:
    """Say whether a file is hidden, or lies in a hidden folder of its tree, or is what a system leaves anywhere."""
    return any((part.startswith(".") and part != "..") or part.lower() in _JUNK for part in PurePosixPath(path).parts)


def is_archive(path: str) -> bool:
    """Say whether a file is packed, by its name."""
    return PurePosixPath(path).suffix.lower() in _ARCHIVES


Opener = Callable[[Path], Any]
"""Opens a tree: a context manager that gives a function from a piece to its bytes, which may raise ``FileError``."""


def _tree(format: str, path: Path, files: list[TreeFile], opener: Opener, naming: Naming) -> Source:
    name = shown(os.fsencode(path))
    folders = {
        file["path"]: PurePosixPath(file["path"]).parts[:-1] for file in files if not is_passed_over(file["path"])
    }
    places, of_label = _places(set(folders.values()), naming, name)
    pieces = []
    for file in sorted(files, key=lambda file: str(file["path"])):
        folder = folders.get(file["path"])
        if folder is not None and (folder in of_label or _is_image(file["path"])):
            place = places[folder]
            label = (*folder, *(folder[-1:] or [path.name]))[place.label_at]
            pieces.append(file | {"place": place, "label": label_key(label)})
    if not any(piece["place"].names in of_label for piece in pieces):
        raise DataError(_no_label(path, files))
    notes = _set_splits(pieces, path, naming, name)
    counts = Counter((piece["split"], piece["label"]) for piece in pieces)
    meanings, said = label_meanings(counts, naming, name, "in any order")
    for piece in pieces:
        meaning = meanings[piece["label"]]
        if isinstance(meaning, int):
            piece["label"] = EMOTIONS[meaning]
        else:
            piece["problem"] = piece["problem"] or meaning
    if unread := [path for path in folders if is_archive(path) or PurePosixPath(path).suffix.lower() in _TABLES]:
        notes.append(f"Not read: {amount(len(unread), 'file')} such as {unread[0]}. Unpack or name what holds images.")
    if dict(Counter(piece["split"] for piece in pieces)) == _RESPLIT:
        notes.append("28,821 and 7,066 images: not the official split, so figures don't compare with published ones.")
    return Source(
        format=format,
        name=name,
        manifest=[_manifest(pieces[at : at + _TASK_FILES]) for at in range(0, len(pieces), _TASK_FILES)],
        read=functools.partial(_read, path, opener),
        total=len(pieces),
        notes=notes + said,
    )


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _no_label(path: Path, files: list[TreeFile]) -> str:
    examples = ", ".join(file["path"] for file in files[:3])
    holds = f"{len(files):,} file(s) such as {examples}, none" if files else "no files, so none"
    return (
        f"{path}: holds {holds} in a folder named after an emotion or a number. Expected SPLIT/LABEL/image or"
        f" LABEL/image at any depth, with LABEL one of {', '.join(EMOTIONS)}; --labels names others. An archive inside"
        " has to be unpacked first."
    )


def _places(
    folders: set[tuple[str, ...]], naming: Naming, where: str
) -> tuple[dict[tuple[str, ...], Place], set[tuple[str, ...]]]:
    """Return the place of each folder, and which of them lie in a folder of a label.

    Raises:
        DataError: folders of numbers lie in one another, so that either may be labels.
    """
    label_of = functools.cache(lambda name: naming.label_of(label_key(name)))
    found = _labels_at(folders, lambda name: label_of(name) is not None) or _labels_at(folders, is_number)
    depths = Counter(position for positions in found.values() for position in positions)
    at = {folder: max(positions, key=lambda at: (depths[at], at)) for folder, positions in found.items()}
    doubled = next((folder for folder, positions in found.items() if _are_numbers(folder, positions)), None)
    if doubled:
        raise DataError(
            f"{where}: {'/'.join(doubled)} has numbers at two levels, of which either may be the labels. Rename the"
            " folders that are none, such as 7 to person7."
        )
    parents = {folder[:position] for folder, position in at.items()}
    places = {folder: Place(folder, position) for folder, position in at.items()}
    for folder in folders - set(at):
        # A folder beside those of labels is one of a label that isn't known, or else the deepest that is no split.
        beside = [position for position in range(len(folder)) if folder[:position] in parents]
        no_split = [position for position, name in enumerate(folder) if not read_splits([name], naming.splits)[name]]
        places[folder] = Place(folder, (beside or no_split or [len(folder)])[-1])
    return places, set(at)


def _labels_at(folders: set[tuple[str, ...]], is_label: Callable[[str], bool]) -> dict[tuple[str, ...], list[int]]:
    found = {folder: [at for at, name in enumerate(folder) if is_label(name)] for folder in folders}
    return {folder: positions for folder, positions in found.items() if positions}


def _are_numbers(folder: tuple[str, ...], positions: list[int]) -> bool:
    numbers = [position for position, name in enumerate(folder) if is_number(name)]
    return len(numbers) > 1 and bool(set(numbers) & set(positions))


def _set_splits(pieces: list[TreeFile], path: Path, naming: Naming, where: str) -> list[str]:
    """Set the split of each piece in place of its place, and return what is to be said about that.

    Raises:
        DataError: names of folders or files tell the splits of some images alone.
    """
    splits, notes = splits_of_places({piece["place"] for piece in pieces}, naming.splits, where)
    default, said = split_of_root(path, naming.splits)
    for piece in pieces:
        piece["split"] = splits[piece.pop("place")] or default or "train"
    if not any(splits.values()) and (by_file := _set_by_file(pieces, naming, where)):
        return notes + by_file
    return [*notes, *(said if None in splits.values() else []), *_set_official(pieces)]


def _set_by_file(pieces: list[TreeFile], naming: Naming, where: str) -> list[str]:
    """Set the splits that the files' names say, if all say one, and return what is to be said about that."""
    words = {piece["path"]: re.sub(r"\d+", "", PurePosixPath(piece["path"]).stem) for piece in pieces}
    of_words = read_splits(set(words.values()), naming.splits)
    if not _all_say({path: of_words[word] for path, word in words.items()}, where):
        return []
    for piece in pieces:
        piece["split"] = of_words[words[piece["path"]]]
    examples = {split: word for word, split in sorted(of_words.items())}
    listed = ", ".join(f"{word} is {split}" for split, word in examples.items())
    return [f"No folder is called like a split, so the files' names say it: {listed}."]


def _all_say(splits: dict[str, str | None], where: str) -> bool:
    """Say whether all files' names say splits.

    Raises:
        DataError: those of some images say another one than train, and those of others none.
    """
    saying = [path for path, split in splits.items() if split in ("validation", "test")]
    silent = [path for path, split in splits.items() if split is None]
    if silent and len(saying) >= max(2, len(splits) / 100):
        raise DataError(
            f"{where}: no folder is called like a split. The names of {amount(len(saying), 'image')} say one, such as"
            f" {saying[0]}, and those of {len(silent):,} others say none, such as {silent[0]}. Put the images into"
            " folders of splits, or, if all are for training, say --splits '*=train'."
        )
    return not silent


def _set_official(pieces: list[TreeFile]) -> list[str]:
    """Tell FER-2013's later splits apart by the file names of one split, unless somebody has split anew."""
    words = {piece["path"]: re.split(r"[\W\d_]", PurePosixPath(piece["path"]).name, maxsplit=1)[0] for piece in pieces}
    later = {piece["split"] for piece in pieces} - {"train"}
    official = [piece for piece in pieces if words[piece["path"]] in _OFFICIAL]
    is_split_anew = any(piece["split"] == "train" for piece in official) or any(
        words[piece["path"]] == "Training" for piece in pieces if piece["split"] != "train"
    )
    if len(later) == 1 and not is_split_anew:
        for piece in official:
            piece["split"] = _OFFICIAL[words[piece["path"]]]
        return []
    elsewhere = sum(piece["split"] != _OFFICIAL[words[piece["path"]]] for piece in official)
    if not elsewhere:
        return []
    return [
        f"{elsewhere:,} images lie in another split than their names of FER-2013 say; the folders decide. This is not"
        " the official split, so figures don't compare with published ones."
    ]


def _manifest(pieces: list[TreeFile]) -> pa.Table:
    types = {
        "path": pa.string(),
        "split": pa.string(),
        "label": pa.string(),
        "problem": pa.string(),
        "file": pa.binary(),
    }
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


def _read_one(root: Path, load: Callable[[TreeFile], bytes], piece: TreeFile, rows: RowBuilder) -> None:
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
def _folder_loader(root: Path) -> Iterator[Callable[[TreeFile], bytes]]:
    del root  # the pieces say where their files are
    yield lambda piece: read_file(piece["file"])
