"""Trees of image files, ``SPLIT/LABEL/image`` or ``LABEL/image``, as a folder or inside a .zip.

Folder names decide, at any depth. The deepest folder that is named after an emotion gives the label; if the tree has
none, the deepest folder that is a number does. ``fer_ray.sources.split_names`` gives the splits of folders; if no
folder has one, the files' names or the root's name give the split, or else it is ``train``. The Kaggle "msambare" tree
has two splits of FER-2013 in ``test/``, which the file names tell apart. A .zip is read without unpacking it.
"""

import functools
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from fer_ray.console.text import amount
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.images.decode import decode
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.image_files import FileError, list_files, path_text, read_file
from fer_ray.sources.label_names import NameOptions, is_number, label_key
from fer_ray.sources.raw_rows import RowBuilder, Source
from fer_ray.sources.split_names import SPLITS, TreePath, read_splits, split_of_root, splits_of_paths
from fer_ray.sources.zip_files import list_members, read_member

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
"""Suffixes of image files, in lower case. In a folder named after a label any other file counts too."""

TreeFile = dict[str, Any]
"""A file of a tree: ``path`` as text, ``problem``, and ``file`` or ``location`` for its loader; in the manifest also
``split`` and ``label``."""

_OFFICIAL = {"PublicTest": "validation", "PrivateTest": "test"}  # the first word of FER-2013's file names
_ARCHIVES, _TABLES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}, {".csv", ".tsv", ".parquet"}
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_TASK_FILES = 1024  # some hundredths of a second of decoding at 48 × 48
_RESPLIT = {"train": 28_821, "validation": 7_066}


@dataclass(frozen=True)
class Tree:
    """The files of a folder or .zip, except hidden ones of a folder."""

    path: Path
    format: str  # folder or zip
    files: list[TreeFile]

    def count_images(self) -> int:
        """Count the image files in folders named after emotions."""
        label_of = functools.cache(NameOptions().label_of)
        images = [path for file in self.files if _is_image(path := file["path"]) and not is_ignored(path)]
        return sum(any(label_of(label_key(name)) is not None for name in path.split("/")[:-1]) for path in images)


def list_tree(path: Path) -> Tree:
    """List a folder or .zip; ``DataError`` if the .zip is damaged, or a folder can't be listed.

    Links are followed, except to a folder that contains them. The paths leave out a single root folder that has the
    .zip's own name.
    """
    if path.is_file():
        try:
            with path.open("rb") as archive:
                members = list_members(archive)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path}: not readable as a .zip: {error}. Copy or download it again.") from error
        name = f"{path.stem}/"
        cut = len(name) if all(member.path.startswith(name) for member in members) else 0
        return Tree(path, "zip", [member._asdict() | {"path": member.path[cut:]} for member in members])
    unlistable, root = list[OSError](), os.fsencode(path)
    files = [
        {"path": path_text(file[len(root) :].lstrip(b"/")), "problem": "", "file": file}
        for file in list_files([path], unlistable.append)
    ]
    if unlistable:
        raise DataError([f"{path_text(error.filename)}: can't be listed: {error.strerror}." for error in unlistable])
    return Tree(path, "folder", files)


def is_ignored(path: str) -> bool:
    """Return whether a file is hidden, is in a hidden folder of its tree, or is a system's own, such as Thumbs.db."""
    return any((part.startswith(".") and part != "..") or part.lower() in _JUNK for part in PurePosixPath(path).parts)


def is_archive(path: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return PurePosixPath(path).suffix.lower() in _ARCHIVES


def open_tree(tree: Tree, options: NameOptions) -> Source:
    """Return the images of a folder or .zip as a source.

    ``DataError`` if no image is in a folder named after a label, or labels or splits are unclear.
    """
    path, files, name = tree.path, tree.files, path_text(os.fsencode(tree.path))
    folders = {file["path"]: PurePosixPath(file["path"]).parts[:-1] for file in files if not is_ignored(file["path"])}
    paths, of_label = _tree_paths(set(folders.values()), options, name)
    images: list[TreeFile] = []
    for file in sorted(files, key=lambda file: str(file["path"])):
        folder = folders.get(file["path"])
        if folder is not None and (folder in of_label or _is_image(file["path"])):
            tree_path = paths[folder]
            label = (*folder, *(folder[-1:] or [path.name]))[tree_path.label_at]
            images.append(file | {"tree_path": tree_path, "label": label})
    if not any(image["tree_path"].names in of_label for image in images):
        raise DataError(_no_label(path, files))
    notes = _set_splits(images, path, options, name)
    if unread := [path for path in folders if is_archive(path) or PurePosixPath(path).suffix.lower() in _TABLES]:
        notes.append(f"Not read: {amount(len(unread), 'file')} such as {unread[0]}. Unpack it, or give it as SOURCE.")
    if dict(Counter(image["split"] for image in images)) == _RESPLIT:
        notes.append("28,821 and 7,066 images: not the official split, so figures don't compare with published ones.")
    types = {"file": pa.binary(), "location": pa.list_(pa.int64())}
    schema = pa.schema({name: types.get(name, pa.string()) for name in images[0]})
    return Source(
        format=tree.format,
        name=name,
        manifest=[
            pa.Table.from_pylist(images[at : at + _TASK_FILES], schema) for at in range(0, len(images), _TASK_FILES)
        ],
        read=functools.partial(_read, path),
        total=len(images),
        notes=notes,
        number_order="unknown",
    )


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _no_label(path: Path, files: list[TreeFile]) -> str:
    examples = ", ".join(file["path"] for file in files[:3])
    holds = f"{len(files):,} file(s) such as {examples}, none" if files else "no files, so none"
    return (
        f"{path}: holds {holds} in a folder named after an emotion or a number. Expected SPLIT/LABEL/image or"
        f" LABEL/image at any depth, with LABEL one of {', '.join(EMOTIONS)}; --labels adds others. Archives inside"
        " must be unpacked first."
    )


def _tree_paths(
    folders: set[tuple[str, ...]], options: NameOptions, source: str
) -> tuple[dict[tuple[str, ...], TreePath], set[tuple[str, ...]]]:
    """Return each folder's path with the position of its label, and the folders that have a label."""
    label_of = functools.cache(lambda name: options.label_of(label_key(name)))
    found = _labels_at(folders, lambda name: label_of(name) is not None) or _labels_at(folders, is_number)
    numbers = _labels_at(folders, is_number)
    doubled = [folder for folder, at in numbers.items() if len(at) > 1 and set(at) & set(found.get(folder, []))]
    if doubled:
        raise DataError(
            f"{source}: {'/'.join(doubled[0])} has numbers at two levels, and either may be the labels. Rename the"
            " folders that aren't labels, such as 7 to person7."
        )
    depths = Counter(position for positions in found.values() for position in positions)
    at = {folder: max(positions, key=lambda at: (depths[at], at)) for folder, positions in found.items()}
    parents = {folder[:position] for folder, position in at.items()}
    paths = {folder: TreePath(folder, position) for folder, position in at.items()}
    for folder in folders - set(at):
        # A sibling of label folders is an unknown label. Without one, the deepest folder that isn't a split is.
        siblings = [position for position in range(len(folder)) if folder[:position] in parents]
        no_split = [position for position, name in enumerate(folder) if not read_splits([name], options.splits)[name]]
        paths[folder] = TreePath(folder, (siblings or no_split or [len(folder)])[-1])
    return paths, set(at)


def _labels_at(folders: set[tuple[str, ...]], is_label: Callable[[str], bool]) -> dict[tuple[str, ...], list[int]]:
    found = {folder: [at for at, name in enumerate(folder) if is_label(name)] for folder in folders}
    return {folder: positions for folder, positions in found.items() if positions}


def _set_splits(images: list[TreeFile], path: Path, options: NameOptions, source: str) -> list[str]:
    """Replace each image's ``tree_path`` by its ``split``, and return notes for the user."""
    splits, notes = splits_of_paths({image["tree_path"] for image in images}, options.splits, source)
    default, root_notes = split_of_root(path, options.splits)
    for image in images:
        image["split"] = splits[image.pop("tree_path")] or default or "train"
    if not any(splits.values()) and (by_file := _set_by_file(images, options, source)):
        return notes + by_file
    return [*notes, *(root_notes if None in splits.values() else []), *_set_official(images)]


def _set_by_file(images: list[TreeFile], options: NameOptions, source: str) -> list[str]:
    """Set the splits by the files' names, if all names mean one, and return notes for the user."""
    words = [re.sub(r"\d+", "", PurePosixPath(image["path"]).stem) for image in images]
    of_words = read_splits(set(words), options.splits)
    later = [image["path"] for image, word in zip(images, words, strict=True) if of_words[word] in SPLITS[1:]]
    unclear = [image["path"] for image, word in zip(images, words, strict=True) if of_words[word] is None]
    if unclear and len(later) >= max(2, len(images) / 100):
        raise DataError(
            f"{source}: no folder is named after a split. The names of {amount(len(later), 'image')} mean one, such as"
            f" {later[0]}, and the names of {len(unclear):,} others none, such as {unclear[0]}. Put the images into"
            " folders of splits, or, if all are for training, give --splits '*=train'."
        )
    if unclear:
        return []
    for image, word in zip(images, words, strict=True):
        image["split"] = of_words[word]
    examples = {split: word for word, split in sorted(of_words.items())}
    listed = ", ".join(f"{word} is {split}" for split, word in examples.items())
    return [f"No folder is named after a split, so file names give the splits: {listed}."]


def _set_official(images: list[TreeFile]) -> list[str]:
    """Divide a single later split by FER-2013's file names, unless the tree has a new split of its own."""
    named = [(image, re.split(r"[\W\d_]", PurePosixPath(image["path"]).name, maxsplit=1)[0]) for image in images]
    later = {image["split"] for image in images} - {"train"}
    official = [(image, _OFFICIAL[word]) for image, word in named if word in _OFFICIAL]
    is_new_split = any(
        (image["split"] == "train") != (word == "Training") for image, word in named if word in ("Training", *_OFFICIAL)
    )
    if len(later) == 1 and not is_new_split:
        for image, split in official:
            image["split"] = split
    moved = sum(image["split"] != split for image, split in official)
    return [
        f"{moved:,} images are in another split than their FER-2013 names say; the folders decide. This isn't the"
        " official split, so figures don't compare with published ones."
    ] * bool(moved)


def _read(root: Path, files: pa.Table, size: int) -> Iterator[pa.Table]:
    rows, of_root = RowBuilder(size), path_text(os.fsencode(root))
    with quiet_decoders(), nullcontext() if root.is_dir() else root.open("rb") as archive:
        for file in files.to_pylist():
            id, path = file["path"], f"{of_root}/{file['path']}"
            try:
                if file["problem"]:
                    raise ValueError(file["problem"])
                image = decode(read_member(archive, file["location"]) if archive else read_file(file["file"]), size)
            except (ValueError, FileError) as error:
                rows.reject(id, path, str(error))
            else:
                rows.add(id, path, file["split"], file["label"], image.pixels, image.width, image.height)
    yield rows.table()
