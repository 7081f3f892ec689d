"""Writing a dataset's Parquet files."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.console.progress import ProgressBar
from fer_ray.dataset.assemble import Spool, SpooledRows
from fer_ray.dataset.quality import Findings, split_info
from fer_ray.dataset.store import DatasetInfo, schema
from fer_ray.emotions import NUM_CLASSES
from fer_ray.sources.raw_rows import NO_LABEL, Source
from fer_ray.sources.split_names import SPLITS
from fer_ray.version import VERSION

_FILE_CHUNKS = 4
GROUP_ROWS = 512
"""Rows of a Parquet row group, which training reads at once when a split streams. Sources are often sorted by label, so
smaller groups mix labels better and take less memory. Below this number reading gets slower."""


def write_dataset(
    folder: Path, source: Source, spool: Spool, rows: SpooledRows, findings: Findings, notes: list[str]
) -> DatasetInfo:
    """Write splits and rejects as Parquet, and return the contents of the dataset.

    The fingerprint is the SHA-256 over each split's name, ids, labels, soft labels if there are any, and pixels.
    """
    digest, splits, shades = hashlib.sha256(), {}, {}
    columns = schema(spool.size, rows.soft is not None)
    length = spool.chunk_rows * _FILE_CHUNKS
    with ProgressBar("Writing Parquet", len(rows.in_order())) as bar:
        for split in SPLITS:
            numbers = rows.of_split(split)
            if not len(numbers):
                continue
            splits[split], shades[split] = split_info(rows, findings, numbers), np.zeros(256, np.int64)
            digest.update(f"{split}\n".encode())
            digest.update("".join(f"{id}\n" for id in _ids(rows, numbers).to_pylist()).encode())
            digest.update(rows.labels[numbers].tobytes())
            if rows.soft is not None:
                digest.update(rows.soft[numbers].tobytes())
            (folder / split).mkdir()
            for part, at in enumerate(range(0, len(numbers), length)):
                # No compression: the dictionary stores 8 bits a pixel, and compression doesn't shrink faces further.
                file = folder / split / f"part-{part:05}.parquet"
                with pq.ParquetWriter(file, columns, compression="none", write_statistics=["id"]) as out:
                    for chosen, images in spool.chunks(numbers[at : at + length]):
                        digest.update(images.data)
                        shades[split] += np.bincount(images.reshape(-1), minlength=256)
                        table = pa.Table.from_arrays(_arrays(rows, findings, chosen, images), schema=columns)
                        out.write_table(table, row_group_size=GROUP_ROWS)
                        bar.advance(len(chosen))
    rejects = rows.rejects()
    pq.write_table(rejects, folder / "rejects.parquet")
    pixels, counts = np.arange(256) / 255, shades.get("train", sum(shades.values()))
    mean = np.average(pixels, weights=counts)
    return DatasetInfo(
        fer_ray_version=VERSION,
        source=source.name,
        source_format=source.format,
        size=spool.size,
        splits=splits,
        mean=mean,
        std=np.sqrt(np.average((pixels - mean) ** 2, weights=counts)),
        rejected=len(rejects),
        left_out=pc.sum(pc.starts_with(rejects["reason"], "left out")).as_py() or 0,
        soft_labels=rows.soft is not None,
        fingerprint=digest.hexdigest(),
        notes=notes,
    )


def _arrays(rows: SpooledRows, findings: Findings, numbers: np.ndarray, images: np.ndarray) -> list[pa.Array]:
    labels, first, near = rows.labels[numbers], findings.first[numbers], findings.near[numbers]
    flags = np.stack([flag[numbers] for flag in findings.flags.values()], axis=1)
    ends = np.cumsum(flags.sum(1), dtype=np.int32)
    flag_names = pa.array(findings.flags).take(pa.array(np.nonzero(flags)[1]))
    arrays = [
        _ids(rows, numbers),
        pa.array(labels, pa.int8(), mask=labels == NO_LABEL),
        pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), images[0].size),
        pa.array(rows.sizes[0, numbers], pa.int32()),
        pa.array(rows.sizes[1, numbers], pa.int32()),
        _ids(rows, first, first == numbers),
        _ids(rows, near, near < 0),
        pa.ListArray.from_arrays(pa.array(np.concatenate([[np.int32(0)], ends])), flag_names),
    ]
    if rows.soft is not None:
        shares = rows.soft[numbers]
        missing = pa.array(np.isnan(shares[:, 0]))
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(shares.reshape(-1)), NUM_CLASSES, mask=missing))
    return arrays


def _ids(rows: SpooledRows, numbers: np.ndarray, absent: np.ndarray | None = None) -> pa.Array:
    return rows.ids.take(pa.array(numbers, mask=absent)).combine_chunks()
