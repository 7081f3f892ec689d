"""Image files to pixels or a reason, and the rows that scoring writes about them. Needs no Ray.

Columns of ``part-*.parquet``, a file a chunk of the manifest, rows in the manifest's order:

==============  =================  =====================================================================
``path``        string             absolute; a byte that is not UTF-8 is written ``\\xNN``
``status``      string             ``ok``; what is wrong with the content (``fer_ray.data.images``), or
                                   ``missing``, ``not_a_file`` or ``unreadable``
``error``       string, null       what is wrong, for people; null where ok
``label``       string, null       the most probable emotion; null where not ok, as all that follow
``confidence``  float, null        its probability, 0 to 1
``p_angry`` …   float, null        the probability of each emotion, csv order, ``p_angry`` to ``p_neutral``
``tta_std``     float, null        standard deviation over the views of the label's probability
==============  =================  =====================================================================
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.disk import FileError, FileProblem, read_file, shown
from fer_ray.data.images import ImageError, ImageProblem, decode
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.errors import DataError
from fer_ray.files import write_whole

_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("error", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        *((f"p_{name}", pa.float32()) for name in EMOTIONS),
        ("tta_std", pa.float32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file gives no picture: the ``status`` and ``error`` of its row."""

    status: ImageProblem | FileProblem
    error: str


def read_image(path: bytes, size: int) -> np.ndarray | Problem:
    """Return a file's image in grey, uint8, size × size, or why there is none; raises nothing for any file."""
    try:
        return decode(read_file(path), size).pixels
    except (ImageError, FileError) as error:
        return Problem(error.kind, error.message)
    except Exception as error:  # a decoder's fault on this one file, which the row tells, must not end the job
        return Problem("undecodable", f"{type(error).__name__}: {error}")


def part_file(folder: Path, chunk: int) -> Path:
    """Return where the rows of a chunk go."""
    return folder / f"part-{chunk:05d}.parquet"


def write_part(
    file: Path,
    paths: Sequence[bytes],
    problems: Sequence[Problem | None],
    probabilities: np.ndarray,
    tta_std: np.ndarray,
    precision: str,
) -> None:
    """Write the rows of a chunk, whole or not at all.

    Args:
        paths: n, of all files.
        problems: n, None where a file gave a picture.
        probabilities: float32, m × 7, csv order, of the m files that gave one.
        tta_std: float32, m.
        precision: the dtype that they were computed in, kept in the file's metadata.
    """
    failed = np.array([problem is not None for problem in problems])
    probs = np.full((len(paths), NUM_CLASSES), np.nan, np.float32)
    spread = np.full(len(paths), np.nan, np.float32)
    probs[~failed], spread[~failed] = probabilities, tta_std
    best = np.where(failed, 0, probs.argmax(axis=1))
    columns = [
        pa.array([shown(path) for path in paths]),
        pa.array(["ok" if problem is None else problem.status for problem in problems]),
        pa.array([None if problem is None else problem.error for problem in problems], pa.string()),
        pa.array(np.array(EMOTIONS)[best], pa.string(), mask=failed),
        pa.array(probs[np.arange(len(best)), best], mask=failed),
        *(pa.array(probs[:, label], mask=failed) for label in range(NUM_CLASSES)),
        pa.array(spread, mask=failed),
    ]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, _SCHEMA.with_metadata({"precision": precision})), sink)
    write_whole(file, sink.getvalue())


@dataclass(frozen=True)
class Totals:
    """Counts over the parts: rows by ``status``, ok rows by ``label``, the precisions that were met."""

    status: Counter[str]
    label: Counter[str]
    precisions: tuple[str, ...]


def count_parts(folder: Path, sizes: Sequence[int]) -> Totals:
    """Count the rows of all parts, one part in memory at a time, and remove what a killed worker left unfinished.

    Args:
        folder: the output.
        sizes: rows that each part must have.

    Raises:
        DataError: a part is missing, damaged, or has another number of rows.
    """
    for left_by_a_kill in folder.glob(".part-*.partial"):
        left_by_a_kill.unlink()
    status, label, precisions = Counter[str](), Counter[str](), set[str]()
    for chunk, expected in enumerate(sizes):
        file = part_file(folder, chunk)
        try:
            table = pq.read_table(file, columns=["status", "label"])
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{file}: not readable: {error}. Remove it and run again with --resume.") from error
        if len(table) != expected:
            raise DataError(f"{file}: {len(table)} rows, {expected} expected. Remove it and run again with --resume.")
        status.update(table["status"].to_pylist())
        label.update(name for name in table["label"].to_pylist() if name is not None)
        precisions.add(precision_of(file))
    return Totals(status, label, tuple(sorted(precisions)))


def precision_of(file: Path) -> str:
    """Return the dtype that a part was computed in."""
    return str(pq.read_schema(file).metadata[b"precision"].decode())
