"""The rows of a scoring job and their files.

Workers write a *piece* for each chunk of the manifest, into ``_pieces/``; as soon as all pieces of a *part* are there
they become one file, ``part-*.parquet`` or ``part-*.csv``, and go. So the files on disk are the whole state of a job.

Columns, rows in the manifest's order:

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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fer_ray.console.messages import redacted
from fer_ray.emotions import EMOTIONS
from fer_ray.images.decode import ImageProblem
from fer_ray.images.faces import FoundFace
from fer_ray.images.image_files import FileProblem, path_text
from fer_ray.scoring.manifest import Chunk
from fer_ray.storage.object_store import REQUESTS_AT_ONCE
from fer_ray.storage.output import Output

NO_FAILURE = ("ok", "no_face")
"""The statuses of inputs that did not fail."""
PIECES = "_pieces"
PART_CHUNKS = 128
"""Chunks a part: up to 131,072 inputs, of which a Parquet file takes about 8 MB."""

_FLOATS = ("confidence", *(f"p_{name}" for name in EMOTIONS), "entropy", "tta_std")
_BOX = ("face_x", "face_y", "face_width", "face_height", "face_score")
_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("error", pa.string()),
        ("label", pa.string()),
        *((name, pa.float32()) for name in _FLOATS),
    ]
)
_FACE_SCHEMA = pa.schema([*_SCHEMA, ("face", pa.int32()), *((name, pa.float32()) for name in _BOX)])


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


@dataclass(frozen=True)
class OutputPart:
    """A file of the output, and the chunks whose rows it holds.

    Attributes:
        number: from 0.
        chunks: by their number in the whole job.
    """

    number: int
    chunks: dict[int, Chunk]

    @property
    def files(self) -> int:
        """Inputs that it must account for."""
        return sum(chunk.files for chunk in self.chunks.values())

    def name(self, format: str) -> str:
        """Its name in the output."""
        return f"part-{self.number:05d}.{format}"


def lay_out(listings: Sequence[Sequence[Chunk]]) -> list[OutputPart]:
    """Return the parts of a job. Those of a listing stay as they are when another one follows."""
    parts, first = list[OutputPart](), 0
    for chunks in listings:
        for start in range(0, len(chunks), PART_CHUNKS):
            own = chunks[start : start + PART_CHUNKS]
            parts.append(OutputPart(len(parts), dict(enumerate(own, first + start))))
        first += len(chunks)
    return parts


def piece_name(chunk: int) -> str:
    """Return where the rows of a chunk are until their part is complete."""
    return f"{PIECES}/{chunk:07d}.parquet"


def write_piece(
    folder: Output,
    chunk: int,
    rows: Sequence[ScoredRow],
    probabilities: np.ndarray,
    entropy: np.ndarray,
    tta_std: np.ndarray,
    precision: str,
    with_faces: bool,
) -> None:
    """Write the rows of a chunk, whole or not at all.

    Args:
        rows: n.
        probabilities: float32, m × 7, csv order, of the m rows that have no problem.
        entropy: float32, m.
        tta_std: float32, m.
        precision: dtype of the computation, stored in the file's metadata.
        with_faces: write the columns of faces.
    """
    failed = np.array([row.problem is not None for row in rows], bool)
    best = probabilities.argmax(axis=1)
    columns = [
        pa.array([path_text(row.name) for row in rows]),
        pa.array([row.problem.status if row.problem else "ok" for row in rows]),
        pa.array([_error(row) for row in rows], pa.string()),
        _spread(np.array(EMOTIONS)[best], failed),
        _spread(probabilities[np.arange(len(best)), best], failed),
        *(_spread(probabilities[:, label], failed) for label in range(len(EMOTIONS))),
        _spread(entropy, failed),
        _spread(tta_std, failed),
    ]
    if with_faces:
        columns.append(pa.array([row.number for row in rows], pa.int32()))
        columns += [
            pa.array([None if row.face is None else row.face[side] for row in rows], pa.float32())
            for side in range(len(_BOX))
        ]
    schema = (_FACE_SCHEMA if with_faces else _SCHEMA).with_metadata({"precision": precision})
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema), sink)
    folder.write(piece_name(chunk), sink.getvalue())


def _error(row: ScoredRow) -> str | None:
    return redacted(row.problem.error) if row.problem and row.problem.error else None


def _spread(values: np.ndarray, failed: np.ndarray) -> pa.Array:
    """Return the values of the rows that are ok, with nulls for those that failed."""
    all_values = np.zeros(len(failed), values.dtype)
    all_values[~failed] = values
    return pa.array(all_values, mask=failed)


def merge(folder: Output, part: OutputPart, format: str) -> None:
    """Make a part of its pieces, and remove them; a kill in between leaves both, and the part counts."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        tables = list(pool.map(lambda chunk: _read_piece(folder, chunk), part.chunks))
    table = pa.concat_tables(tables)
    sink = io.BytesIO()
    if format == "csv":
        pa_csv.write_csv(table, sink)
    else:
        pq.write_table(table, sink)
    folder.write(part.name(format), sink.getvalue())
    folder.remove(*map(piece_name, part.chunks))


def _read_piece(folder: Output, chunk: int) -> pa.Table:
    return pq.read_table(pa.BufferReader(folder.read(piece_name(chunk))))


def read_part(folder: Output, part: OutputPart, format: str, columns: Sequence[str]) -> pa.Table:
    """Return columns of a part, without those that it lacks.

    Raises:
        OSError, pyarrow.ArrowException: it can't be read.
    """
    with folder.open(part.name(format)) as file:
        if format == "parquet":
            with pq.ParquetFile(file) as opened:
                return opened.read([name for name in columns if name in opened.schema_arrow.names])
        convert = pa_csv.ConvertOptions(column_types={field.name: field.type for field in _FACE_SCHEMA})
        parse = pa_csv.ParseOptions(newlines_in_values=True)  # names and messages may hold newlines
        table = pa_csv.read_csv(file, parse_options=parse, convert_options=convert)
    return table.select([name for name in columns if name in table.column_names])


def finished(folder: Output, parts: Sequence[OutputPart], format: str) -> tuple[set[int], set[int]]:
    """Return the numbers of the parts that are written, and of the chunks that have a piece."""
    written = set(folder.names())
    pieces = set(folder.names(PIECES))
    return (
        {part.number for part in parts if part.name(format) in written},
        {chunk for part in parts for chunk in part.chunks if piece_name(chunk) in pieces},
    )
