"""Count the rows of a scoring job, and choose and read sample pictures."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fer_ray.errors import DataError
from fer_ray.images.decode import ImageError, decode, resize
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.faces import FoundFace, crop
from fer_ray.images.image_files import FileError
from fer_ray.scoring.columns import BOX, NO_FAILURE
from fer_ray.scoring.containers import read_entry
from fer_ray.scoring.manifest import Chunk, Manifest
from fer_ray.scoring.parts import part_name, read_part
from fer_ray.scoring.timed_threads import TimedBatches
from fer_ray.storage.object_store import REQUESTS_AT_ONCE
from fer_ray.storage.output import Output

Row = dict[str, Any]
"""A row of a part, by column."""
BINS = 20
"""Number of bins of the histogram of confidence, from 0 to 1."""
_FAILURES_KEPT, _KEPT = 20, 12  # failures; samples of each kind
_COLUMNS = ("path", "status", "error", "label", "confidence", "face", *BOX)
_THUMBNAIL, _SUFFICES = 96, 512
_SECONDS = 10.0  # for a picture of the page


@dataclass
class Totals:
    """Counts over rows.

    Attributes:
        status: inputs by status.
        label: rows that are ok, by label.
        confidence: rows that are ok, by ``BINS`` equal bins of confidence.
        failures: rows of failed inputs, those that failed first: path, status, error.
        surest: rows of the highest confidence, in descending order; with the number of their ``input``.
        least_sure: rows of the lowest confidence, in ascending order; likewise.
        no_crops: inputs of this run that were taken as faces but don't look like crops of faces.
        seconds: of this run by stage, those of all threads together.
        began: when this run started its first chunk, seconds since the epoch.
    """

    status: Counter[str] = field(default_factory=Counter)
    label: Counter[str] = field(default_factory=Counter)
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    failures: list[Row] = field(default_factory=list)
    surest: list[Row] = field(default_factory=list)
    least_sure: list[Row] = field(default_factory=list)
    no_crops: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    began: float = math.inf

    @property
    def files(self) -> int:
        """Number of inputs."""
        return self.status.total()

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return sum(count for status, count in self.status.items() if status not in NO_FAILURE)

    @classmethod
    def of(cls, table: pa.Table, chunk: Chunk) -> "Totals":
        """Count the rows of a chunk."""
        status, label, confidence = (table[name].to_pylist() for name in ("status", "label", "confidence"))
        face = table["face"].to_pylist() if "face" in table.column_names else [None] * len(table)
        numbers = chunk.first + np.cumsum([not one for one in face]) - 1  # of the inputs; a second face has the first's
        firsts = [row for row, one in enumerate(face) if not one]
        failed = [row for row in firsts if status[row] not in NO_FAILURE]
        scored = [row for row, one in enumerate(status) if one == "ok"]
        order = sorted(scored, key=confidence.__getitem__)

        def samples(rows: Iterable[int]) -> list[Row]:
            return [{"input": int(numbers[row])} | table.slice(row, 1).to_pylist()[0] for row in rows]

        return cls(
            Counter(status[row] for row in firsts),
            Counter(label[row] for row in scored),
            np.histogram([confidence[row] for row in scored], BINS, (0, 1))[0],
            [table.select(["path", "status", "error"]).slice(row, 1).to_pylist()[0] for row in failed[:_FAILURES_KEPT]],
            samples(order[::-1][:_KEPT]),
            samples(order[:_KEPT]),
        )

    def add(self, other: "Totals") -> None:
        """Add the counts over other rows."""
        self.status.update(other.status)
        self.label.update(other.label)
        self.confidence += other.confidence
        self.failures = (self.failures + other.failures)[:_FAILURES_KEPT]
        self.surest = sorted(self.surest + other.surest, key=lambda one: -one["confidence"])[:_KEPT]
        self.least_sure = sorted(self.least_sure + other.least_sure, key=lambda one: one["confidence"])[:_KEPT]
        self.no_crops += other.no_crops
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds
        self.began = min(self.began, other.began)


def count_parts(folder: Output, chunks: Iterable[Chunk], format: str) -> Totals:
    """Count the rows of parts, one part in memory at a time.

    Raises:
        DataError: a part is damaged or has rows of another number of inputs.
    """
    totals = Totals()
    for chunk in chunks:
        file = f"{folder.path_or_url}/{part_name(chunk, format)}"
        try:
            of_part = Totals.of(read_part(folder, chunk, format, _COLUMNS), chunk)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: can't be read: {error}. Remove it and run again with --resume.") from error
        if of_part.files != chunk.files:
            raise DataError(
                f"{file}: has rows of {of_part.files:,} inputs, {chunk.files:,} expected. Remove it and run again with"
                " --resume."
            )
        totals.add(of_part)
    return totals


def thumbnails(folder: Output, samples: Sequence[Row]) -> list[np.ndarray | None]:
    """Read the pictures of rows again: grey squares, uint8; None where a picture can't be read any more."""
    manifest = Manifest(folder)

    def picture(sample: Row) -> np.ndarray | None:
        (entry,) = manifest.read(Chunk(sample["input"], 1))
        try:
            image = decode(read_entry(entry), shorter_side=_SUFFICES)
        except (FileError, ImageError):
            return None
        pixels, scale = image.pixels, image.pixels.shape[1] / image.width
        if sample.get("face") is not None:
            pixels = crop(pixels, FoundFace._make([*(sample[side] for side in BOX), 0.0]).scaled(scale))
        return resize(pixels, _THUMBNAIL)

    with quiet_decoders():
        return TimedBatches(picture, lambda sample: None, list, REQUESTS_AT_ONCE, _SECONDS).map([samples])[0]
