"""A scoring job: its options, the identity that all its rows share, and its file."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from fer_ray.errors import UsageError
from fer_ray.scoring.manifest import listings
from fer_ray.scoring.parts import NO_FAILURE
from fer_ray.storage.local import LOCK_FILE
from fer_ray.storage.output import Output

JOB_FILE = "_job.json"
PREPROCESSING = "grey, square, fer_ray.images.decode 3"
"""Part of the fingerprint. Change it whenever decoding or resizing gives other pixels."""

_FORMAT_VERSION = 2


@dataclass(frozen=True)
class ScoringOptions:
    """How a job scores.

    Attributes:
        checkpoints: absolute paths and URLs of their folders.
        tta: one of ``fer_ray.inference.tta_names.TTA_NAMES``.
        faces: as for ``fer_ray.images.faces.load_detector``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        batch_size: images a forward pass; None to measure.
        timeout_s: seconds for reading and decoding one input.
    """

    checkpoints: Sequence[str]
    tta: str
    faces: str
    precision: str
    batch_size: int | None
    timeout_s: float


@dataclass
class StageSeconds:
    """Seconds of all threads, by stage."""

    reading: float = 0.0
    decoding: float = 0.0
    predicting: float = 0.0
    writing: float = 0.0

    def add(self, other: "StageSeconds") -> None:
        """Add the seconds of another."""
        for name, seconds in vars(other).items():
            setattr(self, name, getattr(self, name) + seconds)


@dataclass
class Speed:
    """The speed of a run.

    Attributes:
        files: inputs scored.
        seconds: from the start of the first chunk until all rows were written.
        spent: seconds of the actors' threads.
        threads: of all actors.
        listing_s: seconds of listing.
    """

    files: int
    seconds: float = 0.0
    spent: StageSeconds = field(default_factory=StageSeconds)
    threads: int = 1
    listing_s: float = 0.0


class ChunkResult(NamedTuple):
    """The result of a chunk: its inputs by status, and the seconds of all threads."""

    by_status: Counter[str]
    spent: StageSeconds

    @property
    def files(self) -> int:
        """Number of inputs."""
        return self.by_status.total()

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return sum(count for status, count in self.by_status.items() if status not in NO_FAILURE)


@dataclass(frozen=True)
class Identity:
    """Everything but the precision that determines the numbers in the output.

    Attributes:
        checkpoint: SHA-256 of the checkpoints' weights and configurations.
        tta: name of the views.
        faces: name of the detector; empty without one.
        preprocessing: version of the way from file to pixels.
    """

    checkpoint: str
    tta: str
    faces: str
    preprocessing: str = PREPROCESSING

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all attributes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ScoringJob:
    """A scoring job, as its output stores it.

    Attributes:
        identity: determines its numbers.
        inputs: paths and URLs, as ``fer_ray.scoring.inputs.check_inputs`` returns them.
        format: of its parts, ``parquet`` or ``csv``.
        precision: ``float32`` or ``bfloat16``; None before the first chunk is done.
        batch_size: images a forward pass, as sums of other sizes round differently; None before the first chunk is
            done.
    """

    identity: Identity
    inputs: list[str]
    format: str
    precision: str | None = None
    batch_size: int | None = None

    def write(self, folder: Output) -> None:
        """Write the job file. It also marks the first listing as complete."""
        folder.write(JOB_FILE, json.dumps({"format_version": _FORMAT_VERSION} | asdict(self), indent=2) + "\n")


def sha256_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' contents, one after the other, as hexadecimal digits.

    Raises:
        OSError: one can't be read.
    """
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()


def previous_job(folder: Output, requested: ScoringJob) -> ScoringJob | None:
    """Return the job to resume; None where it was killed before its first listing was complete.

    Raises:
        UsageError: the output belongs to another job or stage.
    """
    if not folder.exists(JOB_FILE):
        strange = [name for name in folder.names() if not _before_job(name)]
        if strange:
            raise UsageError(
                f"{folder.path_or_url}: not the output of a scoring job, it holds {strange[0]} and no {JOB_FILE}."
            )
        folder.remove(*listings(folder))
        return None
    job = _read(folder)
    ours, theirs = asdict(requested.identity), asdict(job.identity)
    problems = [
        f"{folder.path_or_url}: --resume with another {name}: the output was scored with {theirs[name] or 'none'}, the"
        f" request is {ours[name] or 'none'}. Resume with the previous value, or choose another output."
        for name in ours
        if ours[name] != theirs[name]
    ]
    if job.inputs != requested.inputs:
        problems.append(
            f"{folder.path_or_url}: --resume with other inputs: the job lists {', '.join(job.inputs)}. Name the same"
            " inputs in the same order; new files in them are found."
        )
    if job.format != requested.format:
        problems.append(
            f"{folder.path_or_url}: --resume with --format {requested.format}: its files are {job.format}. Use that"
            " format."
        )
    if problems:
        raise UsageError(problems)
    return job


def as_computed(job: ScoringJob, folder: Output, precision: str, batch_size: int) -> ScoringJob:
    """Return the job with precision and batch size of its first chunk, and write it where they are new."""
    if job.precision:
        return job
    updated = replace(job, precision=precision, batch_size=batch_size)
    updated.write(folder)
    return updated


def _read(folder: Output) -> ScoringJob:
    file = f"{folder.path_or_url}/{JOB_FILE}"
    try:
        content: dict[str, Any] = json.loads(folder.read(JOB_FILE))
        version = content.pop("format_version")
        job = (
            ScoringJob(**content | {"identity": Identity(**content["identity"])})
            if version == _FORMAT_VERSION
            else None
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file}: can't be read as a scoring job: {error!r}. Start again in another folder."
        ) from error
    if job is None:
        raise UsageError(
            f"{file}: format version {version}, expected {_FORMAT_VERSION}. Start again in another folder."
        )
    return job


def _before_job(name: str) -> bool:
    """Return whether a file may exist in the output before the job file."""
    return name.startswith(("_manifest-", "._manifest-", f".{JOB_FILE}", LOCK_FILE))
