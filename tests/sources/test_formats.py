"""The same images through every format: the same label and the same pixels for each, by drawn and by real faces."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import encoded, rows_of

from fer_ray.emotions import EMOTIONS
from fer_ray.images.decode import decode
from fer_ray.sources.recognise import open_source
from fer_ray.sources.synthetic import synthetic_faces

COUNT = 2000
USAGE = {"train": "Training", "validation": "PublicTest"}
ALPHABETICAL = sorted(EMOTIONS)


class Faces(NamedTuple):
    """Images, uint8, n × 48 × 48; their labels, csv order; their splits; each as a PNG."""

    images: np.ndarray
    labels: list[int]
    splits: list[str]
    files: list[bytes]


def drawn() -> Faces:
    images, labels = synthetic_faces(COUNT, seed=0)
    splits = ["validation" if number % 5 == 0 else "train" for number in range(COUNT)]
    return Faces(images, labels.tolist(), splits, [encoded(image) for image in images])


def real(archive: Path) -> Faces:
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".jpg"))
        names = names[:: len(names) // COUNT][:COUNT]
        images = np.stack([decode(opened.read(name)).pixels for name in names])
    labels = [EMOTIONS.index(name.split("/")[-2]) for name in names]
    splits = ["validation" if "/test/" in f"/{name}" else "train" for name in names]
    return Faces(images, labels, splits, [encoded(image) for image in images])


@pytest.fixture(scope="module", params=["drawn", "real"])
def faces(request: pytest.FixtureRequest) -> Faces:
    return drawn() if request.param == "drawn" else real(request.getfixturevalue("fer2013_zip"))


def csv_text(faces: Faces, header: str, row: str) -> bytes:
    texts = (" ".join(map(str, image)) for image in faces.images.reshape(len(faces.images), -1).tolist())
    values = zip(faces.labels, texts, faces.splits, strict=True)
    lines = [row.format(emotion=label, pixels=text, usage=USAGE[split]) for label, text, split in values]
    return "\n".join([header, *lines, ""]).encode()


def fer2013_csv(faces: Faces, folder: Path) -> Path:
    (folder / "fer2013.csv").write_bytes(csv_text(faces, "emotion,pixels,Usage", "{emotion},{pixels},{usage}"))
    return folder


def icml_csv(faces: Faces, folder: Path) -> Path:
    text = csv_text(faces, "emotion, Usage, pixels", "{emotion}, {usage}, {pixels}")
    (folder / "icml_face_data.csv").write_bytes(text)
    return folder / "icml_face_data.csv"


def zipped_csv(faces: Faces, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "fer.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("fer2013.csv", csv_text(faces, "emotion,pixels,Usage", "{emotion},{pixels},{usage}"))
    return folder / "fer.zip"


def tree_names(faces: Faces, splits: dict[str, str]) -> list[str]:
    places = zip(faces.splits, faces.labels, range(len(faces.labels)), strict=True)
    return [f"{splits[split]}/{EMOTIONS[label]}/{number:05}.png" for split, label, number in places]


def msambare_folder(faces: Faces, folder: Path) -> Path:
    for name, data in zip(tree_names(faces, {"train": "train", "validation": "test"}), faces.files, strict=True):
        official = (
            name if name.startswith("train") else name.replace(".png", "").replace("/0", "/PublicTest_0") + ".png"
        )
        (folder / official).parent.mkdir(parents=True, exist_ok=True)
        (folder / official).write_bytes(data)
    return folder


def split_folder(faces: Faces, folder: Path) -> Path:
    names = tree_names(faces, {"train": "images/train", "validation": "images/validation"})
    for name, data in zip(names, faces.files, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped_folder(faces: Faces, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        names = tree_names(faces, {"train": "archive/train", "validation": "archive/val"})
        for name, data in zip(names, faces.files, strict=True):
            archive.writestr(name, data)
    return folder / "x.zip"


def write_hub(
    faces: Faces, folder: Path, images: Callable[[bytes], Any], labels: Callable[[int], Any], meta: Any
) -> Path:
    """Write files as a hub has them: two of the training split, with small row groups, and one of the validation."""
    (folder / "data").mkdir()
    numbers = {split: [n for n, of in enumerate(faces.splits) if of == split] for split in USAGE}
    half = len(numbers["train"]) // 2
    parts = {
        "train-00000-of-00002": numbers["train"][:half],
        "train-00001-of-00002": numbers["train"][half:],
        "validation-00000-of-00001": numbers["validation"],
    }
    for name, rows in parts.items():
        columns = {
            "image": [images(faces.files[row]) for row in rows],
            "label": [labels(faces.labels[row]) for row in rows],
        }
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(meta)} if meta else None)
        pq.write_table(table, folder / "data" / f"{name}.parquet", row_group_size=300)
    return folder


def hub_bytes(faces: Faces, folder: Path) -> Path:
    return write_hub(faces, folder, lambda data: data, lambda label: label, None)


def hub_structs(faces: Faces, folder: Path) -> Path:
    return write_hub(faces, folder, lambda data: {"bytes": data, "path": None}, EMOTIONS.__getitem__, None)


def hub_class_labels(faces: Faces, folder: Path) -> Path:
    meta = {
        "info": {"features": {"image": {"_type": "Image"}, "label": {"names": ALPHABETICAL, "_type": "ClassLabel"}}}
    }

    def number(label: int) -> int:
        return ALPHABETICAL.index(EMOTIONS[label])

    return write_hub(faces, folder, lambda data: {"bytes": data, "path": None}, number, meta)


def split_folders_of_parquet(faces: Faces, folder: Path) -> Path:
    for split, name in (("train", "train"), ("validation", "val")):
        rows = [number for number, of in enumerate(faces.splits) if of == split]
        columns = {"img_bytes": [faces.files[row] for row in rows], "labels": [faces.labels[row] for row in rows]}
        (folder / name).mkdir()
        pq.write_table(pa.table(columns), folder / name / "0000.parquet")
    return folder


FORMATS = {
    "csv": (fer2013_csv, icml_csv, zipped_csv),
    "folder": (msambare_folder, split_folder),
    "zip": (zipped_folder,),
    "parquet": (hub_bytes, hub_structs, hub_class_labels, split_folders_of_parquet),
}


@pytest.mark.parametrize("make", [make for makers in FORMATS.values() for make in makers])
def test_the_same_images_through_every_format(
    make: Callable[[Faces, Path], Path], faces: Faces, tmp_path: Path
) -> None:
    source = make(faces, tmp_path)
    (format,) = (format for format, makers in FORMATS.items() if make in makers)
    assert open_source(source).format == format
    rows, images = rows_of(source)
    assert not any(row["reason"] for row in rows)
    if format in ("folder", "zip"):
        numbers = [int(row["id"][-9:-4]) for row in rows]
    elif format == "csv":
        numbers = [int(row["id"].removeprefix("row-")) - 1 for row in rows]
    else:  # rows lie by split there, and by number within one
        numbers = sorted(range(COUNT), key=lambda number: (faces.splits[number], number))
    assert sorted(numbers) == list(range(COUNT))
    assert len({row["id"] for row in rows}) == COUNT
    assert [row["label"] for row in rows] == [faces.labels[number] for number in numbers]
    assert [row["split"] for row in rows] == [faces.splits[number] for number in numbers]
    np.testing.assert_array_equal(images, faces.images[numbers])


def test_the_resplit_kaggle_tree_is_said_to_be_unofficial(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for split, count in (("train", 28_821), ("validation", 7_066)):
            for number in range(count):
                archive.writestr(f"images/{split}/{EMOTIONS[number % 7]}/{number}.jpg", b"")
    (note,) = open_source(tmp_path / "x.zip").notes
    assert "not the official split" in note
