"""The list of what a scoring job scores: Parquet files with a row an input, one file a listing.

Paths are bytes there, so that names which are not UTF-8 survive. A row group is a *chunk*: the unit of work, and of
what ``--resume`` does again. An input that is named several times has one row, which says how often. Names that begin
with ``_`` are passed over by Parquet readers that are given the folder.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.console.progress import ProgressBar
from fer_ray.errors import DataError
from fer_ray.scoring.containers import Entry
from fer_ray.storage.output import Output

KNOWN = -1
"""The row of things that were there before."""
_FILES = 64
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


class Repeats:
    """Collects things by row and finds those that came before, as a context manager.

    Takes 24 bytes a thing of disk, and a sixty-fourth of that of memory.
    """

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fer_ray-")))
            self._files = [stack.enter_context(file.open("w+b")) for file in self._paths()]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, thing: bytes, row: int) -> None:
        """Add a thing; rows count upwards from 0, or are ``KNOWN``."""
        digest = hashlib.blake2b(thing, digest_size=16).digest()  # equal by chance: once in 10^14 jobs of 10^12 things
        self._files[digest[0] % _FILES].write(digest + row.to_bytes(8, "little", signed=True))

    def find(self) -> tuple[np.ndarray, dict[int, int]]:
        """Return the rows, sorted, whose thing came before; and how often those did that were the first and not known.

        Things that came once are left out of the latter.
        """
        repeated, times = [np.empty(0, np.int64)], dict[int, int]()
        for records in self._sorted():
            is_first = np.ones(len(records), bool)
            is_first[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
            repeated.append(records["row"][~is_first])
            firsts = np.flatnonzero(is_first)
            counts = np.diff(np.append(firsts, len(records)))
            rows = records["row"][firsts]
            several = (counts > 1) & (rows != KNOWN)
            times.update(zip(rows[several].tolist(), counts[several].tolist(), strict=True))
        return np.sort(np.concatenate(repeated)), times

    def _paths(self) -> list[Path]:
        return [self._folder / str(number) for number in range(_FILES)]

    def _sorted(self) -> Iterator[np.ndarray]:
        for file, path in zip(self._files, self._paths(), strict=True):
            file.flush()
            records = np.fromfile(path, _RECORD)
            yield records[np.lexsort((records["row"], records["low"], records["high"]))]


T = TypeVar("T")

PREFIX = "_manifest-"
CHUNK_FILES = 1024
"""Most files of a chunk: about half a second of a core's work with a small network and small pictures."""
_FIRST_CHUNK_FILES, _GROWTH = 64, 32

_SCHEMA = pa.schema(
    [
        pa.field("name", pa.binary(), nullable=False),
        ("container", pa.binary()),
        ("place", pa.list_(pa.int64())),
        ("problem", pa.string()),
        pa.field("times", pa.int32(), nullable=False),
    ]
)
_REPEATS = b"repeats"  # in a file's metadata: by chunk, how many inputs it has beyond its rows


@dataclass(frozen=True)
class Chunk:
    """A chunk of a listing.

    Attributes:
        manifest: name of the listing's file.
        group: number of the row group there.
        files: inputs in it.
    """

    manifest: str
    group: int
    files: int


def add_listing(folder: Output, entries: Iterable[Entry], may_repeat: bool) -> int:
    """Add the entries that no previous listing has, as one more, whole or not at all; return how many inputs they are.

    Args:
        folder: the output.
        entries: in any number; memory doesn't grow with it.
        may_repeat: an entry may come more than once.

    Raises:
        DataError: a previous listing can't be read.
    """
    previous = listings(folder)
    with folder.writing(f"{PREFIX}{len(previous):04d}.parquet") as file, ProgressBar("listing", None, "inputs") as bar:
        known = (entry for name in previous for entry in _all_entries(folder, name))
        with Repeats() if may_repeat or previous else nullcontext() as repeats:
            if repeats:
                for entry in known:
                    repeats.add(_identity(entry), KNOWN)
            total = _write(file, ((entry, 1) for entry in _noted(entries, repeats, bar)))
            repeated, times = repeats.find() if repeats else (np.empty(0, np.int64), {})
        every = file.with_name(f"{file.name}.all")
        every.unlink(missing_ok=True)  # left by a kill
        if len(repeated):
            file.rename(every)
            total = _write(file, _without(every, repeated, times))
            every.unlink()
        if not total:
            file.unlink()
    return total


def listings(folder: Output) -> list[str]:
    """Return the names of the listings' files."""
    return [name for name in folder.names() if name.startswith(PREFIX)]


def read_chunks(folder: Output) -> list[list[Chunk]]:
    """Return the chunks of each listing.

    Raises:
        DataError: a manifest is missing or damaged.
    """
    return [_chunks(folder, name) for name in listings(folder)]


class ChunkReader:
    """Reads chunks in any order, and the end of a listing's file once: it says where each chunk is, so it is long.

    Several threads may read at once.
    """

    def __init__(self, folder: Output) -> None:
        self._folder = folder
        self._ends = dict[str, pq.FileMetaData]()

    def read(self, chunk: Chunk) -> list[tuple[Entry, int]]:
        """Return the entries of a chunk, in order, and how often each is named."""
        end = self._ends.get(chunk.manifest)
        with self._folder.open(chunk.manifest) as opened, pq.ParquetFile(opened, metadata=end) as file:
            self._ends[chunk.manifest] = end or file.metadata
            return list(_rows(file.read_row_group(chunk.group)))


def _chunks(folder: Output, name: str) -> list[Chunk]:
    try:
        with folder.open(name) as opened, pq.ParquetFile(opened) as file:
            metadata = file.metadata
            repeats = json.loads(metadata.metadata[_REPEATS])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{folder.path_or_url}/{name}: not readable: {error}. Start anew in another folder.") from error
    return [
        Chunk(name, group, metadata.row_group(group).num_rows + repeats.get(str(group), 0))
        for group in range(metadata.num_row_groups)
    ]


def _all_entries(folder: Output, name: str) -> Iterator[Entry]:
    reader = ChunkReader(folder)
    for chunk in _chunks(folder, name):
        yield from (entry for entry, _ in reader.read(chunk))


def _noted(entries: Iterable[Entry], repeats: Repeats | None, bar: ProgressBar) -> Iterator[Entry]:
    row = -1
    for row, entry in enumerate(entries):
        if repeats:
            repeats.add(_identity(entry), row)
        if row % CHUNK_FILES == CHUNK_FILES - 1:
            bar.advance(CHUNK_FILES)
        yield entry
    bar.advance((row + 1) % CHUNK_FILES)


def _identity(entry: Entry) -> bytes:
    return b"\0".join((entry.name, entry.container, repr(entry.location).encode()))


def _without(every: Path, repeated: np.ndarray, times: dict[int, int]) -> Iterator[tuple[Entry, int]]:
    with pq.ParquetFile(every) as file:
        first = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            dropped = set(repeated[slice(*np.searchsorted(repeated, [first, first + len(table)]))].tolist())
            for row, (entry, _) in enumerate(_rows(table), start=first):
                if row not in dropped:
                    yield entry, times.get(row, 1)
            first += len(table)


def _rows(table: pa.Table) -> Iterator[tuple[Entry, int]]:
    for row in table.to_pylist():
        location = tuple(row["place"] or ())
        yield Entry(row["name"], row["container"] or b"", location, row["problem"] or ""), row["times"]


def _chunked(entries: Iterator[T]) -> Iterator[list[T]]:
    """Yield chunks that grow, so that a small job can be shared out and a large one has few of them."""
    before = 0
    while chunk := list(islice(entries, min(CHUNK_FILES, max(_FIRST_CHUNK_FILES, before // _GROWTH)))):
        yield chunk
        before += len(chunk)


def _write(file: Path, entries: Iterator[tuple[Entry, int]]) -> int:
    """Write entries and their numbers, a row group a chunk, and return how many inputs they are."""
    total, repeats = 0, dict[int, int]()
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        for group, chunk in enumerate(_chunked(entries)):
            columns: list[list[Any]] = [
                [entry.name for entry, _ in chunk],
                [entry.container or None for entry, _ in chunk],
                [list(entry.location) or None for entry, _ in chunk],
                [entry.problem or None for entry, _ in chunk],
                [times for _, times in chunk],
            ]
            writer.write_table(pa.table(columns, schema=_SCHEMA))
            inputs = sum(columns[-1])
            total += inputs
            if inputs > len(chunk):
                repeats[group] = inputs - len(chunk)
        writer.add_key_value_metadata({_REPEATS: json.dumps(repeats)})
    return total
