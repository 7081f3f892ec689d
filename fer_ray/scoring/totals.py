"""Count the rows of a scoring job, and choose sample pictures."""

import math
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fer_ray.errors import DataError
from fer_ray.images.decode import png_of
from fer_ray.scoring.columns import NO_FAILURE
from fer_ray.scoring.manifest import Chunk
from fer_ray.scoring.parts import part_name, read_part
from fer_ray.storage.output import Output

BINS = 20  # number of bins of the histogram of confidence, from 0 to 1
_FAILURES_KEPT, _SAMPLES_KEPT = 20, 12  # samples of each kind
_COLUMNS = ("path", "status", "error", "label", "confidence", "face")


@dataclass
class Totals:
    """Counts over rows.

    ``failures`` are rows of the inputs that failed first: path, status, error. ``samples`` are rows of this run with
    the highest and the lowest confidence, in descending order: path, label, confidence, png (base64).
    """

    status: Counter[str] = field(default_factory=Counter)  # inputs by status
    label: Counter[str] = field(default_factory=Counter)  # rows that are ok, by label
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))  # rows that are ok, by equal bins
    failures: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    no_crops: int = 0  # inputs of this run that were taken as faces but don't look like crops of faces
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # of all threads, by stage
    began: float = math.inf  # when this run started its first chunk, seconds since the epoch

    @property
    def files(self) -> int:
        """Number of inputs."""
        return self.status.total()

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return sum(count for status, count in self.status.items() if status not in NO_FAILURE)

    @classmethod
    def of(cls, table: pa.Table, pictures: Sequence[np.ndarray] = ()) -> "Totals":
        """Count the rows of a part, and choose samples from the pictures, uint8, size × size, of those that are ok."""
        status, label, confidence = (table[name].to_pylist() for name in ("status", "label", "confidence"))
        face = table["face"].to_pylist() if "face" in table.column_names else [None] * len(table)
        firsts = [row for row, number in enumerate(face) if not number]  # a second face is not a second input
        failed = [row for row in firsts if status[row] not in NO_FAILURE]
        scored = [row for row, one in enumerate(status) if one == "ok"]
        shown = _ends(sorted(zip(scored, pictures, strict=False), key=lambda pair: -confidence[pair[0]]))
        return cls(
            Counter(status[row] for row in firsts),
            Counter(label[row] for row in scored),
            np.histogram([confidence[row] for row in scored], BINS, (0, 1))[0],
            [table.select(["path", "status", "error"]).slice(row, 1).to_pylist()[0] for row in failed[:_FAILURES_KEPT]],
            [
                {
                    "path": table["path"][row].as_py(),
                    "label": label[row],
                    "confidence": confidence[row],
                    "png": b64encode(png_of(picture)).decode(),
                }
                for row, picture in shown
            ],
        )

    def add(self, other: "Totals") -> None:
        """Add the counts over other rows."""
        self.status.update(other.status)
        self.label.update(other.label)
        self.confidence += other.confidence
        self.failures = (self.failures + other.failures)[:_FAILURES_KEPT]
        self.samples = _ends(sorted(self.samples + other.samples, key=lambda one: -one["confidence"]))
        self.no_crops += other.no_crops
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds
        self.began = min(self.began, other.began)


def _ends(samples: list[Any]) -> list[Any]:
    return samples[:_SAMPLES_KEPT] + samples[_SAMPLES_KEPT:][-_SAMPLES_KEPT:]


def count_parts(folder: Output, chunks: Iterable[Chunk], format: str) -> Totals:
    """Count the rows of parts, one in memory at a time; ``DataError`` if one is damaged or lacks rows."""
    totals = Totals()
    for chunk in chunks:
        file = f"{folder.path_or_url}/{part_name(chunk, format)}"
        try:
            of_part = Totals.of(read_part(folder, chunk, format, _COLUMNS))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: can't be read: {error}. Remove it and run again with --resume.") from error
        if of_part.files != chunk.files:
            raise DataError(
                f"{file}: has rows of {of_part.files:,} inputs, {chunk.files:,} expected. Remove it and run again with"
                " --resume."
            )
        totals.add(of_part)
    return totals
