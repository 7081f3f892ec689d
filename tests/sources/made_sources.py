"""The same rows as a folder, a .zip, CSV files and Parquet files, with any names of splits and labels."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from inputs import picture, pixels_text, rows_of, write, zipped

from fer_ray.emotions import EMOTIONS
from fer_ray.sources.split_names import SPLITS

RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
AFFECT_NET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry")
LABELS = [label for label in range(7) for _ in range(3)]  # of the rows of each split


def shade(split: str, number: int) -> int:
    return 70 * SPLITS.index(split) + 3 * number


MEANING = {shade(split, row): (split, label) for split in SPLITS for row, label in enumerate(LABELS)}


def numbered(order: tuple[str, ...], first: int, form: str = "{}") -> list[str]:
    """Return the number of each emotion, csv order, in another order."""
    return [form.format(order.index(name) + first) for name in EMOTIONS]


def tree_files(splits: Iterable[str], labels: list[str]) -> dict[str, bytes]:
    if not any(splits):
        splits = [f"{split}_" for split in SPLITS]
        return {path.replace("_/", "_"): data for path, data in tree_files(splits, labels).items()}
    return {
        f"{name}/{labels[label]}/{number:02}.png": picture(shade(split, number))
        for name, split in zip(splits, SPLITS, strict=True)
        for number, label in enumerate(LABELS)
    }


def tree(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    return write(folder / "in", tree_files(splits, labels))


def archive(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    files = {f"faces/{path}": data for path, data in tree_files(splits, labels).items()}
    return write(folder, {"faces.zip": zipped(files)}) / "faces.zip"


def csv(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    files = {}
    for name, split in zip(splits, SPLITS, strict=True):
        lines = [f"{labels[label]},{pixels_text(shade(split, number))}" for number, label in enumerate(LABELS)]
        files[f"{name}.csv"] = "\n".join(["label,pixels", *lines]).encode()
    return write(folder / "in", files)


def hub(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    for name, split in zip(splits, SPLITS, strict=True):
        images = [picture(shade(split, number)) for number in range(len(LABELS))]
        parquet(folder / "in" / f"{name}-00000-of-00001.parquet", labels, image=images, label=LABELS)
    return folder / "in"


MAKERS: list[Callable[[Path, tuple[str, ...], list[str]], Path]] = [tree, archive, csv, hub]


def parquet(path: Path, names: list[str] | None = None, **columns: Any) -> Path:
    """Write a table as the library `datasets` does, with the names of its label numbers."""
    table = pa.table(columns)
    if names:
        meta = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(meta)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def csv_file(path: Path, header: str, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines, ""]))
    return path


def emotions_in(*folders: str) -> dict[str, bytes]:
    return {f"{folder}/{name}/x.png": picture(9) for folder in folders for name in EMOTIONS}


def meaning(source: Path, **options: Any) -> dict[int, tuple[str, int]]:
    """Return split and label of each row by its shade."""
    rows, images = rows_of(source, **options)
    return {int(image[0, 0]): (row["split"], row["label"]) for row, image in zip(rows, images, strict=True)}


def splits_in(source: Path, **options: Any) -> set[str]:
    return {row["split"] for row in rows_of(source, **options)[0]}
