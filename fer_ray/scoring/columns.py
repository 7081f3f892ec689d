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
from fer_ray.emotions import EMOTIONS, PROBABILITY_COLUMNS
from fer_ray.images.faces import FoundFace
from fer_ray.images.image_files import FileProblem, path_text
from fer_ray.scoring.arrow_arrays import arrow_array

NO_FAILURE = ("ok", "no_face")  # the statuses of inputs that did not fail
BOX = ("face_x", "face_y", "face_width", "face_height")

_FLOATS = ("confidence", *PROBABILITY_COLUMNS, "entropy", "tta_std")
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


class ReadImage(NamedTuple):
    """What reading an input gave. ``faces`` are pictures, uint8, size × size, with None where the image is the face."""

    faces: Sequence[tuple[FoundFace | None, np.ndarray]] = ()
    status: FileProblem | Literal["ok", "no_face"] = "ok"  # or why there are no faces
    error: str | None = None  # the problem, for people
    reading: float = 0.0  # seconds
    decoding: float = 0.0  # seconds
    is_crop: bool = True  # whether an image that is taken as a face looks like the crop of one


def rows_of(names: Sequence[bytes], images: Sequence[ReadImage], numbers: np.ndarray, with_faces: bool) -> pa.Table:
    """Return the rows of inputs, one a face, as a table; ``with_faces`` with the columns of faces.

    ``images`` are what reading the inputs gave. ``numbers`` are those of all m faces, float32, m × 9: probabilities in
    csv order, entropy, ``tta_std``.
    """
    rows = [
        (name, image, number, face)
        for name, image in zip(names, images, strict=True)
        for number, face in enumerate([face for face, _ in image.faces] or [None])
    ]
    scored = [bool(image.faces) for _, image, _, _ in rows]
    best = numbers[:, : len(EMOTIONS)].argmax(axis=1)
    columns: list[list[Any]] = [
        [path_text(name) for name, *_ in rows],
        [image.status for _, image, _, _ in rows],
        [image.error and redacted(image.error) for _, image, _, _ in rows],
        _spread(np.array(EMOTIONS)[best], scored),
        _spread(numbers[np.arange(len(best)), best], scored),
        *(_spread(column, scored) for column in numbers.T),
    ]
    if with_faces:
        columns.append([None if face is None else number for _, _, number, face in rows])
        columns += map(list, zip(*(face or [None] * len(FoundFace._fields) for *_, face in rows), strict=True))
    schema = FACE_SCHEMA if with_faces else _SCHEMA
    arrays = [arrow_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _spread(values: np.ndarray, scored: Sequence[bool]) -> list[Any]:
    """Return the values of the rows that are ok, with None for the others."""
    remaining = iter(values.tolist())
    return [next(remaining) if is_scored else None for is_scored in scored]
