"""Makes the inputs that tests of sources and images read, and reads them without Ray."""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from fer_ray.dataset.assemble import Spool
from fer_ray.dataset.store import images_of
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.raw_rows import NO_LABEL
from fer_ray.sources.recognise import open_source
from fer_ray.sources.split_names import SPLITS

FACE = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)


def picture(shade: int, size: tuple[int, int] = (48, 48)) -> bytes:
    return encoded(Image.new("L", size, shade))


def encoded(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def pixels_text(shade: int, count: int = 2304) -> str:
    return " ".join([str(shade)] * count)


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def rows_of(source: Path | str, **options: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return a source's rows without their pixels, split and label by what they mean, and the pixels, n × 48 × 48."""
    opened = open_source(source, **options)
    table = pa.concat_tables([rows for pieces in opened.manifest for rows in opened.read(pieces, 48)])
    assert opened.total in (None, len(table))
    with tempfile.TemporaryFile() as file:
        spool = Spool(file, 48)
        spool.add(table)
        rows, _ = spool.rows(opened, options.get("options") or NameOptions(allow_unknown=True))
    meant = zip(rows.ids.to_pylist(), rows.reasons, rows.splits.tolist(), rows.labels.tolist(), strict=True)
    held = [
        {
            "id": id,
            "reason": reason,
            "split": None if reason else SPLITS[split],
            "label": None if reason or label == NO_LABEL else label,
        }
        for id, reason, split, label in meant
    ]
    return held, images_of(table["pixels"], 48)


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()
