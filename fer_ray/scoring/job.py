"""A scoring job and its file, and what its workers report."""

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from fer_ray.errors import UsageError
from fer_ray.scoring.manifest import Chunk, listing_files
from fer_ray.scoring.totals import Totals
from fer_ray.storage.local import LOCK_FILE
from fer_ray.storage.output import Output

JOB_FILE = "_job.json"
PREPROCESSING = "grey, square, fer_ray.images.decode 3"
"""Part of the fingerprint. Change it whenever decoding or resizing gives other pixels."""

_FORMAT_VERSION = 3
_IDENTITY = ("checkpoint", "tta", "detector", "preprocessing")  # determine the numbers in the output, with precision


@dataclass(frozen=True)
class ScoringJob:
    """A scoring job, as its output stores it.

    Attributes:
        inputs: paths and URLs, as ``fer_ray.scoring.inputs.check_inputs`` returns them.
        checkpoints: absolute paths and URLs of their folders.
        checkpoint: SHA-256 of the checkpoints' weights and configurations.
        tta: one of ``fer_ray.inference.tta_names.TTA_NAMES``.
        faces: as for ``fer_ray.images.faces.load_detector``.
        detector: name of the detector; empty without one.
        format: of the parts, ``parquet`` or ``csv``.
        timeout_s: seconds for reading and decoding one input.
        batch_size: images a forward pass, as sums of other sizes round differently; None for the device's default,
            before the first chunk is done.
        precision: ``float32`` or ``bfloat16``; ``auto`` before the first chunk is done.
        preprocessing: version of the way from file to pixels.
    """

    inputs: list[str]
    checkpoints: list[str]
    checkpoint: str
    tta: str
    faces: str
    detector: str
    format: str
    timeout_s: float
    batch_size: int | None
    precision: str = "auto"
    preprocessing: str = PREPROCESSING

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything but the precision that determines the numbers in the output."""
        identity = {name: value for name, value in asdict(self).items() if name in _IDENTITY}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Output) -> None:
        """Write the job file. It also marks the first listing as complete."""
        folder.write(JOB_FILE, json.dumps({"format_version": _FORMAT_VERSION} | asdict(self), indent=2) + "\n")


class Done(NamedTuple):
    """A chunk whose part is written.

    Attributes:
        chunk: its inputs.
        totals: counts over its rows.
        seconds: of all threads, by stage.
        began: when the scorer started it, seconds since the epoch.
        precision: dtype of the computation.
        batch_size: images a forward pass.
        halved: whether the batch size was halved because memory ran out.
        no_crops: inputs that were taken as faces but don't look like crops of faces.
    """

    chunk: Chunk
    totals: Totals
    seconds: dict[str, float]
    began: float
    precision: str
    batch_size: int
    halved: bool
    no_crops: int


@dataclass
class Speed:
    """The speed of a run.

    Attributes:
        files: inputs scored.
        seconds: from the start of the first chunk until all rows were written.
        by_stage: seconds of all threads; of listing, of the run.
        threads: of all processes that score.
        no_crops: inputs that were taken as faces but don't look like crops of faces.
    """

    files: int = 0
    seconds: float = 0.0
    by_stage: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    threads: int = 1
    no_crops: int = 0


def resumed_job(folder: Output, request: ScoringJob) -> ScoringJob | None:
    """Return the job to resume; None where it was killed before its first listing was complete.

    Raises:
        UsageError: the output belongs to another job or stage.
    """
    output = folder.path_or_url
    if not folder.exists(JOB_FILE):
        before_job = ("_manifest-", "._manifest-", f".{JOB_FILE}", LOCK_FILE)
        if strange := [name for name in folder.names() if not name.startswith(before_job)]:
            raise UsageError(f"{output}: not the output of a scoring job, it holds {strange[0]} and no {JOB_FILE}.")
        folder.remove(*listing_files(folder))
        return None
    job = _read(folder)
    ours, theirs = asdict(request), asdict(job)
    problems = [
        f"{output}: --resume with another {name}: the output was scored with {theirs[name] or 'none'}, the request is"
        f" {ours[name] or 'none'}. Resume with the previous value, or choose another output."
        for name in _IDENTITY
        if ours[name] != theirs[name]
    ]
    if job.inputs != request.inputs:
        problems.append(
            f"{output}: --resume with other inputs: the job lists {', '.join(job.inputs)}. Name the same inputs in the"
            " same order; new files in them are found."
        )
    if job.format != request.format:
        problems.append(
            f"{output}: --resume with --format {request.format}: its files are {job.format}. Use that format."
        )
    if problems:
        raise UsageError(problems)
    return replace(request, precision=job.precision, batch_size=request.batch_size or job.batch_size)


def _read(folder: Output) -> ScoringJob:
    file = f"{folder.path_or_url}/{JOB_FILE}"
    try:
        content = json.loads(folder.read(JOB_FILE))
        if (version := content.pop("format_version")) == _FORMAT_VERSION:
            return ScoringJob(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file}: can't be read as a scoring job: {error!r}. Start again in another folder."
        ) from error
    raise UsageError(f"{file}: format version {version}, expected {_FORMAT_VERSION}. Start again in another folder.")
