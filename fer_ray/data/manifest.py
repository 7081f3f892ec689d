"""The list of files that a scoring job labels, made once and kept in its output folder. Reading needs no Ray.

``_manifest.parquet`` holds one binary column ``path``, absolute, in the bytes of the file system, so that names which
are not UTF-8 survive. A row group is a *chunk*: the unit of work, and of what ``--resume`` does again. Names that begin
with ``_`` are passed over by Parquet readers that are given the folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.disk import list_files
from fer_ray.errors import DataError, UsageError
from fer_ray.files import local_path

MANIFEST_FILE = "_manifest.parquet"
PARTIAL_FILE = f".{MANIFEST_FILE}.partial"
CHUNK_FILES = 1024
"""Files a chunk: about a second of work on two cores with a small network."""

_SCHEMA = pa.schema([pa.field("path", pa.binary(), nullable=False)])


def check_inputs(inputs: Sequence[Path | str]) -> list[Path]:
    """Return the inputs as absolute paths.

    Raises:
        UsageError: there is none, one is a URL, or one lies inside another.
        DataError: one is missing or is neither a folder nor a file.
    """
    if not inputs:
        raise UsageError("no INPUT: name folders or image files to score.")
    paths = [local_path(given) for given in inputs]
    missing = [
        f"{path}: no such file or folder. Name an existing one; relative paths start at {Path.cwd()}."
        for path in paths
        if not os.path.lexists(path)
    ]
    if missing:
        raise DataError(missing)
    nested = [
        f"{path}: lies in {other}, so its files would be scored twice. Name only one of them."
        for number, path in enumerate(paths)
        for position, other in enumerate(paths)
        if (path == other and number > position) or other in path.parents
    ]
    if nested:
        raise UsageError(nested)
    return paths


def write_manifest(folder: Path, inputs: Sequence[Path]) -> int:
    """List the inputs into ``folder``, whole or not at all, and return how many files there are.

    Memory grows with the largest folder, not with the number of files.

    Raises:
        DataError: there is no file.
    """
    partial, total = folder / PARTIAL_FILE, 0
    with pq.ParquetWriter(partial, _SCHEMA) as writer:
        chunk: list[bytes] = []
        for path in list_files(inputs):
            chunk.append(path)
            if len(chunk) == CHUNK_FILES:
                writer.write_table(pa.table([chunk], schema=_SCHEMA))
                total, chunk = total + len(chunk), []
        if chunk:
            writer.write_table(pa.table([chunk], schema=_SCHEMA))
            total += len(chunk)
    if not total:
        partial.unlink()
        names = ", ".join(map(str, inputs))
        raise DataError(f"{names}: no file in there (hidden ones don't count). Name a folder that holds images.")
    partial.replace(folder / MANIFEST_FILE)
    return total


def chunk_sizes(folder: Path) -> list[int]:
    """Return the number of files of each chunk.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    try:
        metadata = pq.read_metadata(folder / MANIFEST_FILE)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{folder / MANIFEST_FILE}: not readable: {error}. Start anew in another folder.") from error
    return [metadata.row_group(chunk).num_rows for chunk in range(metadata.num_row_groups)]


def chunk_paths(folder: Path, chunk: int) -> list[bytes]:
    """Return the paths of a chunk, in order."""
    with pq.ParquetFile(folder / MANIFEST_FILE) as file:
        paths: list[bytes] = file.read_row_group(chunk)["path"].to_pylist()
    return paths
