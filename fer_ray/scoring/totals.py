"""Count the rows of a scoring job, check them against the inputs, and choose sample pictures."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fer_ray.errors import DataError
from fer_ray.images.decode import ImageError, decode, resize
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.faces import FoundFace, crop
from fer_ray.images.image_files import FileError, path_text
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.manifest import Chunk, ChunkReader
from fer_ray.scoring.parts import NO_FAILURE, OutputPart, read_part
from fer_ray.scoring.timed_threads import TimedBatches
from fer_ray.storage.object_store import REQUESTS_AT_ONCE
from fer_ray.storage.output import Output

BINS = 20
"""Number of bins of the histogram of confidence, from 0 to 1."""
_FAILURES_KEPT, _SAMPLES_KEPT = 20, 12
_COLUMNS = ("path", "status", "error", "label", "confidence", "face", "face_x", "face_y", "face_width", "face_height")
_THUMBNAIL, _SUFFICES = 96, 512
_SECONDS = 10.0  # for a picture of the page


class Sample(NamedTuple):
    """A row whose picture is shown; ``part`` is the number of its part, ``face`` its box or None."""

    part: int
    path: str
    label: str
    confidence: float
    face: FoundFace | None


@dataclass
class Totals:
    """Counts over the rows.

    Attributes:
        status: inputs by status.
        label: rows that are ok, by label.
        confidence: rows that are ok, by ``BINS`` equal bins of confidence.
        failures: the first rows of failed inputs: path, status, error.
        surest: rows of the highest confidence, in descending order.
        least_sure: rows of the lowest confidence, in ascending order.
    """

    status: Counter[str] = field(default_factory=Counter)
    label: Counter[str] = field(default_factory=Counter)
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    failures: list[dict[str, Any]] = field(default_factory=list)
    surest: list[Sample] = field(default_factory=list)
    least_sure: list[Sample] = field(default_factory=list)

    @property
    def files(self) -> int:
        """Number of inputs."""
        return self.status.total()

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return sum(count for status, count in self.status.items() if status not in NO_FAILURE)


def count_parts(folder: Output, parts: Sequence[OutputPart], format: str) -> Totals:
    """Count the rows of all parts, one part in memory at a time.

    Raises:
        DataError: a part is missing or damaged, or has rows of another number of inputs.
    """
    totals = Totals()
    for part in parts:
        file = f"{folder.path_or_url}/{part.name(format)}"
        try:
            table = read_part(folder, part, format, _COLUMNS)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: can't be read: {error}. Remove it and run again with --resume.") from error
        firsts = _firsts(table)
        if len(firsts) != part.files:
            raise DataError(
                f"{file}: has rows of {len(firsts):,} inputs, {part.files:,} expected. Remove it and run again with"
                " --resume."
            )
        _add(totals, part, table, firsts)
    return totals


def _firsts(table: pa.Table) -> pa.Table:
    """Return one row an input: without the second and later faces of an image."""
    if "face" not in table.column_names:
        return table
    return table.filter(pc.equal(pc.fill_null(table["face"], 0), 0))


def _add(totals: Totals, part: OutputPart, table: pa.Table, firsts: pa.Table) -> None:
    totals.status.update(firsts["status"].to_pylist())
    left = _FAILURES_KEPT - len(totals.failures)
    if left:
        failed = firsts.filter(pc.invert(pc.is_in(firsts["status"], pa.array(NO_FAILURE))))
        totals.failures += failed.select(["path", "status", "error"]).slice(0, left).to_pylist()
    scored = table.filter(pc.equal(table["status"], "ok"))
    totals.label.update(scored["label"].to_pylist())
    confidence = scored["confidence"].to_numpy()
    totals.confidence += np.histogram(confidence, BINS, (0, 1))[0]
    order = np.argsort(confidence, kind="stable")
    least, most = order[:_SAMPLES_KEPT], order[::-1][:_SAMPLES_KEPT]
    totals.least_sure += [_sample(part, scored, int(row)) for row in least]
    totals.surest += [_sample(part, scored, int(row)) for row in most]
    totals.least_sure = sorted(totals.least_sure, key=lambda sample: sample.confidence)[:_SAMPLES_KEPT]
    totals.surest = sorted(totals.surest, key=lambda sample: -sample.confidence)[:_SAMPLES_KEPT]


def _sample(part: OutputPart, scored: pa.Table, number: int) -> Sample:
    (row,) = scored.slice(number, 1).to_pylist()
    has_box = row.get("face_x") is not None
    face = FoundFace(row["face_x"], row["face_y"], row["face_width"], row["face_height"], 0.0) if has_box else None
    return Sample(part.number, row["path"], row["label"], row["confidence"], face)


def thumbnails(folder: Output, parts: Sequence[OutputPart], samples: Sequence[Sample]) -> list[np.ndarray | None]:
    """Read the pictures of rows again: grey squares, uint8; None where a picture can't be read any more."""
    wanted = {(sample.part, sample.path) for sample in samples}
    manifest = ChunkReader(folder)

    def chosen(part: int, chunk: Chunk) -> list[tuple[tuple[int, str], Entry]]:
        named = (((part, path_text(entry.name)), entry) for entry, _ in manifest.read(chunk))
        return [(name, entry) for name, entry in named if name in wanted]

    chunks = [(part, chunk) for part in sorted({part for part, _ in wanted}) for chunk in parts[part].chunks.values()]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        found = dict(chain.from_iterable(pool.map(lambda one: chosen(*one), chunks)))

    def picture(sample: Sample) -> np.ndarray | None:
        entry = found.get((sample.part, sample.path))
        try:
            image = decode(read_entry(entry), shorter_side=_SUFFICES) if entry else None
        except (FileError, ImageError):
            return None
        if image is None:
            return None
        pixels, scale = image.pixels, image.pixels.shape[1] / image.width
        if sample.face:
            pixels = crop(pixels, sample.face.scaled(scale))
        return resize(pixels, _THUMBNAIL)

    with quiet_decoders():
        return TimedBatches(picture, lambda sample: None, list, 1, _SECONDS).map([samples])[0]
