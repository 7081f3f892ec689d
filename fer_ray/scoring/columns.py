"""The columns of a scoring job's output.

Rows are in the order of the inputs:

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

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from fer_ray.console.messages import redacted
from fer_ray.emotions import EMOTIONS
from fer_ray.images.decode import ImageProblem
from fer_ray.images.faces import FoundFace
from fer_ray.images.image_files import FileProblem, path_text
from fer_ray.scoring.arrow_arrays import arrow_array

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
FACE_SCHEMA = pa.schema([*_SCHEMA, ("face", pa.int32()), *((name, pa.float32()) for name in (*BOX, "face_score"))])


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
    schema = FACE_SCHEMA if with_faces else _SCHEMA
    arrays = [arrow_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _spread(values: np.ndarray, failed: Sequence[bool]) -> list[Any]:
    """Return the values of the rows that are ok, with None for those that failed."""
    remaining = iter(values.tolist())
    return [None if is_failed else next(remaining) for is_failed in failed]
