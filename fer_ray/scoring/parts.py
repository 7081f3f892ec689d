"""The rows of a scoring job and their files.

The rows of a chunk are one file, a *part*: ``part-FIRST-LAST.parquet`` or ``.csv``, by the numbers of the chunk's first
and last input. The parts in the output are the state of a job: what they don't cover is left to score.

Columns, rows in the order of the inputs:

===============  =================  ===================================================================================
``path``         string             absolute, or a URL; of a member ``CONTAINER!/MEMBER``; a byte that is not UTF-8 is
                                    written ``\\xNN``
``status``       string             ``ok``; ``no_face``; a problem of the content (``fer_ray.images.decode``) or of
                                    reading it (``fer_ray.images.image_files``)
``error``        string, null       the problem, for people; null where ok or ``no_face``
``label``        string, null       the most probable emotion; null where not ok, as in all columns below
``confidence``   float, null        its probability, 0 to 1
``p_angry`` …    float, null        the probability of each emotion, csv order, ``p_angry`` to ``p_neutral``
``entropy``      float, null        of the probabilities, in nats, 0 to 1.95
``tta_std``      float, null        standard deviation over the views of the label's probability
``face``         int, null          only with a detector, as all columns below: number of the face in its image, from 0
``face_x`` …     float, null        ``face_x``, ``face_y``, ``face_width``, ``face_height``: its box in pixels of the
                                    image as viewers show it, from the left and the top
``face_score``   float, null        the detector's confidence, on its own scale
===============  =================  ===================================================================================
"""

import io
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fer_ray.console.messages import redacted
from fer_ray.emotions import EMOTIONS
from fer_ray.images.decode import ImageProblem
from fer_ray.images.faces import FoundFace
from fer_ray.images.image_files import FileProblem, path_text
from fer_ray.scoring.arrow_arrays import arrow_array
from fer_ray.scoring.manifest import Chunk
from fer_ray.storage.output import Output

NO_FAILURE = ("ok", "no_face")
"""The statuses of inputs that did not fail."""
PROBABILITIES = tuple(f"p_{name}" for name in EMOTIONS)
BOX = ("face_x", "face_y", "face_width", "face_height")

_FLOATS = ("confidence", *PROBABILITIES, "entropy", "tta_std")
_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("error", pa.string()),
        ("label", pa.string()),
        *((name, pa.float32()) for name in _FLOATS),
    ]
)
_FACE_SCHEMA = pa.schema([*_SCHEMA, ("face", pa.int32()), *((name, pa.float32()) for name in (*BOX, "face_score"))])


class Problem(NamedTuple):
    """The ``status`` and ``error`` of an input without a picture."""

    status: ImageProblem | FileProblem | Literal["no_face"]
    error: str | None


class ScoredRow(NamedTuple):
    """An unwritten row: the input's name, its problem or None, and the number of its face or None."""

    name: bytes
    problem: Problem | None
    number: int | None = None
    face: FoundFace | None = None


def part_name(chunk: Chunk, format: str) -> str:
    """Return the name of the file with a chunk's rows."""
    return f"part-{chunk.first:09d}-{chunk.end - 1:09d}.{format}"


def written_chunks(folder: Output, format: str) -> list[Chunk]:
    """Return the chunks whose rows are written, in order."""
    names = (re.fullmatch(rf"part-(\d+)-(\d+)\.{format}", name) for name in folder.names())
    return sorted(Chunk(int(name[1]), int(name[2]) + 1 - int(name[1])) for name in names if name)


def unwritten_chunks(listings: Sequence[Chunk], written: Sequence[Chunk]) -> list[Chunk]:
    """Return what the written chunks leave of the listings."""
    left = list[Chunk]()
    for listing in listings:
        first = listing.first
        for chunk in [one for one in written if listing.first <= one.first < listing.end]:
            left.append(Chunk(first, chunk.first - first))
            first = chunk.end
        left.append(Chunk(first, listing.end - first))
    return [chunk for chunk in left if chunk.files]


def rows_of(rows: Sequence[ScoredRow], numbers: np.ndarray, with_faces: bool) -> pa.Table:
    """Return rows as a table.

    Args:
        rows: n.
        numbers: float32, m × 9, of the m rows that have no problem: probabilities in csv order, entropy, ``tta_std``.
        with_faces: add the columns of faces.
    """
    failed = [row.problem is not None for row in rows]
    best = numbers[:, : len(EMOTIONS)].argmax(axis=1)
    columns: list[list[Any]] = [
        [path_text(row.name) for row in rows],
        [row.problem.status if row.problem else "ok" for row in rows],
        [redacted(row.problem.error) if row.problem and row.problem.error else None for row in rows],
        _spread(np.array(EMOTIONS)[best], failed),
        _spread(numbers[np.arange(len(best)), best], failed),
        *(_spread(column, failed) for column in numbers.T),
    ]
    if with_faces:
        columns.append([row.number for row in rows])
        columns += map(list, zip(*(row.face or [None] * len(FoundFace._fields) for row in rows), strict=True))
    schema = _FACE_SCHEMA if with_faces else _SCHEMA
    arrays = [arrow_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _spread(values: np.ndarray, failed: Sequence[bool]) -> list[Any]:
    """Return the values of the rows that are ok, with None for those that failed."""
    remaining = iter(values.tolist())
    return [None if is_failed else next(remaining) for is_failed in failed]


def write_part(folder: Output, chunk: Chunk, table: pa.Table, format: str) -> None:
    """Write the rows of a chunk, whole or not at all."""
    sink = io.BytesIO()
    if format == "csv":
        pa_csv.write_csv(table, sink)
    else:
        pq.write_table(table, sink)
    folder.write(part_name(chunk, format), sink.getvalue())


def read_part(folder: Output, chunk: Chunk, format: str, columns: Sequence[str] = _FACE_SCHEMA.names) -> pa.Table:
    """Return columns of a part, without those that it lacks.

    Raises:
        OSError, pyarrow.ArrowException: it can't be read.
    """
    with folder.open(part_name(chunk, format)) as file:
        if format == "parquet":
            with pq.ParquetFile(file) as opened:
                return opened.read([name for name in columns if name in opened.schema_arrow.names])
        convert = pa_csv.ConvertOptions(column_types={field.name: field.type for field in _FACE_SCHEMA})
        parse = pa_csv.ParseOptions(newlines_in_values=True)  # names and messages may hold newlines
        table = pa_csv.read_csv(file, parse_options=parse, convert_options=convert)
    return table.select([name for name in columns if name in table.column_names])
