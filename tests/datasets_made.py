"""A source to prepare, and what a prepared folder holds."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.dataset.store import DATASET_FILE, DatasetInfo, PreparedDataset, Split, SplitInfo, schema
from fer_ray.emotions import EMOTIONS


def read_split(archive: zipfile.ZipFile, prefix: str) -> Split:
    """Read the images of a split of FER-2013's zip."""
    names = sorted(name for name in archive.namelist() if Path(name).name.startswith(prefix))
    raw = [np.frombuffer(archive.read(name), np.uint8) for name in names]
    images = np.stack([cv2.imdecode(image, cv2.IMREAD_GRAYSCALE) for image in raw])
    labels = np.array([EMOTIONS.index(Path(name).parent.name) for name in names])
    return Split(names, images, labels, np.zeros(len(names), bool))


def write_csv(path: Path, rows: list[tuple[int, np.ndarray, str]]) -> Path:
    lines = [f"{label},{' '.join(map(str, image.reshape(-1)))},{usage}" for label, image, usage in rows]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return path


def hashes(folder: Path) -> dict[str, str]:
    """All files but the provenance, which names the time of the start."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "provenance.json")
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def dataset_info(splits: dict[str, SplitInfo], **fields: Any) -> DatasetInfo:
    made = {"fer_ray_version": "0", "source": "made", "source_format": "made", "size": 8, "mean": 0.5, "std": 0.3}
    return DatasetInfo(splits=splits, **made | fields)


def write_prepared(folder: Path, labels: Mapping[str, Sequence[int | None]], soft: bool = False) -> PreparedDataset:
    """A prepared dataset of 8 × 8 images, the brighter the higher their label, that hold their row's number within the
    split, see ``numbers_in``. Soft labels are 0.75 for the label and 0.25 for the next one.
    """
    splits, shares = {}, 0.75 * np.eye(7) + 0.25 * np.roll(np.eye(7), 1, axis=1)
    for split, values in labels.items():
        (folder / split).mkdir(parents=True)
        rows = [
            {
                "id": f"{split}/{number}",
                "label": label,
                "pixels": np.append(np.array([number], np.int32).view(np.uint8), np.full(60, 30 * (label or 0) + 20)),
                "width": 8,
                "height": 8,
                "duplicate_of": None,
                "near_duplicate_of": None,
                "flags": [],
                "soft_label": None if label is None else shares[label],
            }
            for number, label in enumerate(values)
        ]
        for at in range(0, len(rows), 64):
            table = pa.Table.from_pylist(rows[at : at + 64], schema(8, soft))
            pq.write_table(table, folder / split / f"part-{at // 64:05}.parquet", row_group_size=16)
        counts = {name: list(values).count(label) for label, name in enumerate(EMOTIONS)}
        splits[split] = SplitInfo(rows=len(rows), labels=counts, unlabelled=list(values).count(None))
    fingerprint = hashlib.sha256(str(folder).encode()).hexdigest()
    info = dataset_info(splits, soft_labels=soft, fingerprint=fingerprint)
    (folder / DATASET_FILE).write_text(info.model_dump_json())
    return PreparedDataset(folder)


def numbers_in(images: np.ndarray) -> list[int]:
    """The rows' numbers of images from ``write_prepared``."""
    return np.ascontiguousarray(images).reshape(len(images), -1).view(np.int32)[:, 0].tolist()
