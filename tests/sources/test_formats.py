"""The same images through every format: the same label and the same pixels for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from inputs import encoded, picture, rows_of, write, zipped
from made_sources import parquet

from fer_ray.emotions import EMOTIONS
from fer_ray.sources.recognise import open_source
from fer_ray.sources.synthetic import synthetic_faces

COUNT = 60
ALPHABETICAL = sorted(EMOTIONS)


class Faces(NamedTuple):
    """Images, uint8, n × 48 × 48; their labels, csv order; their splits; each as a PNG."""

    images: np.ndarray
    labels: list[int]
    splits: list[str]
    files: list[bytes]


@pytest.fixture(scope="module")
def faces() -> Faces:
    images, labels = synthetic_faces(COUNT, seed=0)
    splits = ["validation" if number % 5 == 0 else "train" for number in range(COUNT)]
    return Faces(images, labels.tolist(), splits, [encoded(image) for image in images])


def csv_text(faces: Faces, header: str = "emotion,pixels,Usage", row: str = "{emotion},{pixels},{usage}") -> bytes:
    texts = [" ".join(map(str, image)) for image in faces.images.reshape(COUNT, -1).tolist()]
    usage = {"train": "Training", "validation": "PublicTest"}
    values = zip(faces.labels, texts, faces.splits, strict=True)
    return "\n".join([header, *(row.format(emotion=e, pixels=p, usage=usage[s]) for e, p, s in values), ""]).encode()


def tree(faces: Faces, train: str, validation: str, prefix: str = "") -> dict[str, bytes]:
    places = [(train, "") if split == "train" else (validation, prefix) for split in faces.splits]
    return {
        f"{folder}/{EMOTIONS[faces.labels[number]]}/{start}{number:05}.png": faces.files[number]
        for number, (folder, start) in enumerate(places)
    }


def hub(
    faces: Faces,
    folder: Path,
    image: Callable[[bytes], Any],
    label: Callable[[int], Any],
    names: list[str] | None = None,
    files: tuple[str, ...] = ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"),
) -> Path:
    """Write files as a hub has them, with small row groups: two of the training split and one of the validation."""
    train = [number for number, split in enumerate(faces.splits) if split == "train"]
    parts = [train[:20], train[20:], sorted(set(range(COUNT)) - set(train))]
    for name, rows in zip(files, parts, strict=True):
        images, labels = [image(faces.files[row]) for row in rows], [label(faces.labels[row]) for row in rows]
        parquet(folder / "data" / f"{name}.parquet", names, group_rows=15, image=images, label=labels)
    return folder


def struct(data: bytes) -> dict[str, bytes | None]:
    return {"bytes": data, "path": None}


NESTED = ("train/0000", "train/0001", "val/0000")
FORMATS: dict[str, Callable[[Faces, Path], Path]] = {
    "csv": lambda faces, at: write(at, {"fer2013.csv": csv_text(faces)}),
    "csv of the competition": lambda faces, at: (
        write(at, {"icml_face_data.csv": csv_text(faces, "emotion, Usage, pixels", "{emotion}, {usage}, {pixels}")})
        / "icml_face_data.csv"
    ),
    "csv in a zip": lambda faces, at: write(at, {"fer.zip": zipped({"fer2013.csv": csv_text(faces)})}) / "fer.zip",
    "folder": lambda faces, at: write(at, tree(faces, "train", "test", "PublicTest_")),
    "folder of folders": lambda faces, at: write(at, tree(faces, "images/train", "images/validation")),
    "zip": lambda faces, at: write(at, {"x.zip": zipped(tree(faces, "archive/train", "archive/val"))}) / "x.zip",
    "parquet": lambda faces, at: hub(faces, at, bytes, int),
    "parquet of structs": lambda faces, at: hub(faces, at, struct, EMOTIONS.__getitem__),
    "parquet in folders": lambda faces, at: hub(faces, at, bytes, int, files=NESTED),
    "parquet with names": lambda faces, at: hub(
        faces, at, struct, lambda label: ALPHABETICAL.index(EMOTIONS[label]), ALPHABETICAL
    ),
}


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_images_through_every_format(format: str, faces: Faces, tmp_path: Path) -> None:
    source = FORMATS[format](faces, tmp_path)
    assert open_source(source).format == format.split()[0]
    rows, images = rows_of(source)
    assert not any(row["reason"] for row in rows)
    if format.startswith(("folder", "zip")):
        numbers = [int(row["id"][-9:-4]) for row in rows]
    elif format.startswith("csv"):
        numbers = [int(row["id"].removeprefix("row-")) - 1 for row in rows]
    else:  # rows lie by split there, and by number within one
        numbers = sorted(range(COUNT), key=lambda number: (faces.splits[number], number))
    assert sorted(numbers) == list(range(COUNT)) and len({row["id"] for row in rows}) == COUNT
    assert [row["label"] for row in rows] == [faces.labels[number] for number in numbers]
    assert [row["split"] for row in rows] == [faces.splits[number] for number in numbers]
    np.testing.assert_array_equal(images, faces.images[numbers])


def test_the_resplit_kaggle_tree_is_said_to_be_unofficial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_ray.sources.image_trees._RESPLIT", {"train": 3, "validation": 2})
    files = {f"images/{'train' if n < 3 else 'validation'}/happy/{n}.jpg": picture(n) for n in range(5)}
    (note,) = open_source(write(tmp_path, files)).notes
    assert "not the official split" in note
