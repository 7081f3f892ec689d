"""The inputs of a scoring job: Parquet files with one row an input, one file for each listing.

Names are bytes, so that names that aren't UTF-8 survive. Inputs are numbered from 0 over all listings of a job. The
files' names begin with ``_``, so that a Parquet reader of the folder ignores them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.console.progress import ProgressBar
from fer_ray.errors import DataError
from fer_ray.scoring.arrow_arrays import arrow_array
from fer_ray.scoring.containers import Entry
from fer_ray.storage.output import Output

PREFIX = "_manifest-"
GROUP_ROWS = 32_768  # rows of a row group, and the most inputs of a chunk

_SCHEMA = pa.schema(
    [
        pa.field("name", pa.binary(), nullable=False),
        ("container", pa.binary()),
        ("location", pa.list_(pa.int64())),
        ("problem", pa.string()),
    ]
)


class Chunk(NamedTuple):
    """Successive inputs of a listing."""

    first: int  # number of the first
    files: int

    @property
    def end(self) -> int:
        """Number of the input after the last."""
        return self.first + self.files


def listing_files(folder: Output) -> list[str]:
    """Return the names of the listings' files."""
    return [name for name in folder.names() if name.startswith(PREFIX)]


def add_listing(folder: Output, entries: Iterable[Entry]) -> int:
    """Write the entries that no earlier listing has as one more listing; return their number.

    Memory doesn't grow with the entries of a first listing. A later one holds about 80 bytes for each known entry.
    ``DataError`` if an earlier listing can't be read.
    """
    number, new = len(listing_files(folder)), iter(entries)
    if number:
        known = set(map(_digest, Manifest(folder).entries()))
        new = (entry for entry in new if _digest(entry) not in known)
    total = 0
    with folder.writing(f"{PREFIX}{number:04d}.parquet") as file:
        bar = ProgressBar("listing", None, "inputs")  # a line now and then, as long listings are rare
        with pq.ParquetWriter(file, _SCHEMA) as writer:
            while rows := list(islice(new, GROUP_ROWS)):
                values = zip(*((name, *(value or None for value in others)) for name, *others in rows), strict=True)
                columns = [arrow_array(column, field.type) for column, field in zip(values, _SCHEMA, strict=True)]
                writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), row_group_size=GROUP_ROWS)
                total += len(rows)
                bar.advance(len(rows))
        if not total:
            file.unlink()
    return total


class Manifest:
    """The listings of a job; several threads may read. ``DataError`` if one is damaged."""

    def __init__(self, folder: Output) -> None:
        self._folder, self._files = folder, list[tuple[str, pq.FileMetaData]]()
        self.listings = list[Chunk]()  # a chunk for each listing, with all its inputs
        for name in listing_files(folder):
            try:
                with folder.open(name) as opened, pq.ParquetFile(opened) as file:
                    self._files.append((name, file.metadata))
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{folder.path_or_url}/{name}: can't be read: {error}. Start again in another folder."
                ) from error
            first = self.listings[-1].end if self.listings else 0
            self.listings.append(Chunk(first, self._files[-1][1].num_rows))

    def read(self, chunk: Chunk) -> list[Entry]:
        """Return the entries of a chunk, in order."""
        number = next(number for number, one in enumerate(self.listings) if chunk.first < one.end)
        name, metadata = self._files[number]
        first = chunk.first - self.listings[number].first
        groups = range(first // GROUP_ROWS, -(-(first + chunk.files) // GROUP_ROWS))
        with self._folder.open(name) as opened, pq.ParquetFile(opened, metadata=metadata) as file:
            rows = file.read_row_groups(list(groups)).slice(first % GROUP_ROWS, chunk.files).to_pylist()
        return [
            Entry(row["name"], row["container"] or b"", tuple(row["location"] or ()), row["problem"] or "")
            for row in rows
        ]

    def entries(self) -> Iterator[Entry]:
        """Yield the entries of all listings."""
        for listing in self.listings:
            for first in range(listing.first, listing.end, GROUP_ROWS):
                yield from self.read(Chunk(first, min(GROUP_ROWS, listing.end - first)))


def _digest(entry: Entry) -> bytes:
    content = b"\0".join((entry.name, entry.container, repr(entry.location).encode()))
    return hashlib.blake2b(content, digest_size=16).digest()
