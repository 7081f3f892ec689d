"""Writing splits as Parquet files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.dataset.assemble import Spool, SpooledRows
from fer_ray.dataset.quality import Findings
from fer_ray.dataset.store import schema
from fer_ray.emotions import NUM_CLASSES
from fer_ray.sources.raw_rows import NO_LABEL

_FILE_CHUNKS = 4
GROUP_ROWS = 512
"""Rows of a Parquet row group, which training reads at once when a split streams. Sources are often sorted by label, so
smaller groups mix labels better and take less memory. Below this number reading gets slower."""


class SplitWriter:
    """Writes splits as Parquet and computes the fingerprint: SHA-256 over each split's name, ids, labels, soft labels
    if there are any, and pixels.
    """

    def __init__(self, folder: Path, spool: Spool, rows: SpooledRows, findings: Findings):
        self.folder, self.spool, self.rows, self.findings = folder, spool, rows, findings
        self._hash = hashlib.sha256()
        self._schema = schema(spool.size, rows.soft is not None)

    def write(self, split: str) -> Iterator[int]:
        """Write a split, yielding the number of rows after each write."""
        numbers = self.rows.of_split(split)
        self._hash.update(f"{split}\n".encode())
        self._hash_ids(numbers)
        self._hash.update(self.rows.labels[numbers].tobytes())
        if self.rows.soft is not None:
            self._hash.update(self.rows.soft[numbers].tobytes())
        (self.folder / split).mkdir()
        length = self.spool.chunk_rows() * _FILE_CHUNKS
        for part, at in enumerate(range(0, len(numbers), length)):
            # No compression: the dictionary stores 8 bits a pixel, and compression doesn't shrink faces further.
            file = self.folder / split / f"part-{part:05}.parquet"
            with pq.ParquetWriter(file, self._schema, compression="none", write_statistics=["id"]) as out:
                for chosen, images in self.spool.chunks(numbers[at : at + length]):
                    self._hash.update(images.data)
                    out.write_table(self._table(chosen, images), row_group_size=GROUP_ROWS)
                    yield len(chosen)

    def fingerprint(self) -> str:
        """Return the fingerprint of the splits written so far."""
        return self._hash.hexdigest()

    def _hash_ids(self, numbers: np.ndarray) -> None:
        length = self.spool.chunk_rows()
        for start in range(0, len(numbers), length):
            ids = self.rows.ids.take(pa.array(numbers[start : start + length])).to_pylist()
            self._hash.update("".join(f"{id}\n" for id in ids).encode())

    def _table(self, numbers: np.ndarray, images: np.ndarray) -> pa.Table:
        rows, findings = self.rows, self.findings
        labels = rows.labels[numbers]
        columns = [
            self._ids(numbers),
            pa.array(labels, pa.int8(), mask=labels == NO_LABEL),
            pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), self.spool.size**2),
            pa.array(rows.sizes[0, numbers], pa.int32()),
            pa.array(rows.sizes[1, numbers], pa.int32()),
            self._ids(findings.first[numbers], findings.first[numbers] == numbers),
            self._near_ids(numbers),
            self._flags(numbers),
        ]
        if rows.soft is not None:
            columns.append(_soft_column(rows.soft[numbers]))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _ids(self, numbers: np.ndarray, absent: np.ndarray | None = None) -> pa.Array:
        return self.rows.ids.take(pa.array(numbers, mask=absent)).combine_chunks()

    def _near_ids(self, numbers: np.ndarray) -> pa.Array:
        if self.findings.near is None:
            return pa.nulls(len(numbers), pa.string())
        near = self.findings.near[numbers]
        return self._ids(near, near < 0)

    def _flags(self, numbers: np.ndarray) -> pa.Array:
        flags = np.stack([flag[numbers] for flag in self.findings.flags.values()], axis=1)
        ends = np.cumsum(flags.sum(1), dtype=np.int32)
        names = pa.array(self.findings.flags).take(pa.array(np.nonzero(flags)[1]))
        return pa.ListArray.from_arrays(pa.array(np.concatenate([[np.int32(0)], ends])), names)


def _soft_column(shares: np.ndarray) -> pa.Array:
    missing = pa.array(np.isnan(shares[:, 0]))
    return pa.FixedSizeListArray.from_arrays(pa.array(shares.reshape(-1)), NUM_CLASSES, mask=missing)
