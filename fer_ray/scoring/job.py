"""What a scoring job is: how it scores, the identity that all its rows share, and the file that keeps it."""

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
"""Part of the fingerprint: to be changed with any change of decoding or resizing that changes pixels."""

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
        timeout_s: for reading and decoding one input.
    """

    checkpoints: Sequence[str]
    tta: str
    faces: str
    precision: str
    batch_size: int | None
    timeout_s: float


@dataclass
class Spent:
    """Seconds of all threads by what they did."""

    reading: float = 0.0
    decoding: float = 0.0
    predicting: float = 0.0
    writing: float = 0.0

    def add(self, other: "Spent") -> None:
        """Count another's seconds too."""
        for name, seconds in vars(other).items():
            setattr(self, name, getattr(self, name) + seconds)


@dataclass
class Speed:
    """What a run took.

    Attributes:
        files: inputs that it scored.
        seconds: from the first chunk's beginning until all rows were written.
        spent: by the actors' threads.
        threads: of all actors.
        listing_s: seconds that listing took.
    """

    files: int
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)
    threads: int = 1
    listing_s: float = 0.0


class Scored(NamedTuple):
    """What came of a chunk: its inputs by status, and the seconds of all threads."""

    by_status: Counter[str]
    spent: Spent

    @property
    def files(self) -> int:
        """Its inputs."""
        return self.by_status.total()

    @property
    def failed(self) -> int:
        """Those that failed."""
        return sum(count for status, count in self.by_status.items() if status not in NO_FAILURE)


@dataclass(frozen=True)
class Identity:
    """What decides the numbers in the output, besides the precision.

    Attributes:
        checkpoint: SHA-256 of the files that the checkpoints predict with.
        tta: name of the views.
        faces: name of the detector; empty without one.
        preprocessing: from file to pixels.
    """

    checkpoint: str
    tta: str
    faces: str
    preprocessing: str = PREPROCESSING

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ScoringJob:
    """A scoring job, as its output keeps it.

    Attributes:
        identity: of its numbers.
        inputs: paths and URLs, as ``fer_ray.scoring.inputs.check_inputs`` returns them.
        format: of its parts, one of ``fer_ray.scoring.parts.FORMATS``.
        precision: that it computes in; None before the first chunk is done, as with batch_size.
        batch_size: images a forward pass; sums of other sizes are rounded otherwise.
    """

    identity: Identity
    inputs: list[str]
    format: str
    precision: str | None = None
    batch_size: int | None = None

    def write(self, folder: Output) -> None:
        """Write the job file, which also says that the first listing is complete."""
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


def former_job(folder: Output, asked: ScoringJob) -> ScoringJob | None:
    """Return the job that an output is to go on with; None where a kill came before its first listing was complete.

    Raises:
        UsageError: the output is another job's, or not one of this stage.
    """
    if not folder.exists(JOB_FILE):
        strange = [name for name in folder.names() if not _before_job(name)]
        if strange:
            raise UsageError(
                f"{folder.name}: not the output of a scoring job, it holds {strange[0]} and no {JOB_FILE}."
            )
        folder.remove(*listings(folder))
        return None
    job = _read(folder)
    ours, theirs = asdict(asked.identity), asdict(job.identity)
    problems = [
        f"{folder.name}: --resume with another {name}: it was scored with {theirs[name] or 'none'}, asked for is"
        f" {ours[name] or 'none'}. Resume with the previous, or choose another output."
        for name in ours
        if ours[name] != theirs[name]
    ]
    if job.inputs != asked.inputs:
        problems.append(
            f"{folder.name}: --resume with other inputs: it lists {', '.join(job.inputs)}. Name the same in the same"
            " order; what is new in them is found."
        )
    if job.format != asked.format:
        problems.append(f"{folder.name}: --resume with --format {asked.format}: it has {job.format} files. Name that.")
    if problems:
        raise UsageError(problems)
    return job


def as_computed(job: ScoringJob, folder: Output, precision: str, batch_size: int) -> ScoringJob:
    """Return the job with how its first chunk was computed, and write that where it is new."""
    if job.precision:
        return job
    told = replace(job, precision=precision, batch_size=batch_size)
    told.write(folder)
    return told


def _read(folder: Output) -> ScoringJob:
    file = f"{folder.name}/{JOB_FILE}"
    try:
        content: dict[str, Any] = json.loads(folder.read(JOB_FILE))
        version = content.pop("format_version")
        job = (
            ScoringJob(**content | {"identity": Identity(**content["identity"])})
            if version == _FORMAT_VERSION
            else None
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: not readable as a scoring job: {error!r}. Start anew in another folder.") from error
    if job is None:
        raise UsageError(f"{file}: format version {version}, expected {_FORMAT_VERSION}. Start anew in another folder.")
    return job


def _before_job(name: str) -> bool:
    """Say whether a file may lie in the output before the job file does."""
    return name.startswith(("_manifest-", "._manifest-", f".{JOB_FILE}", LOCK_FILE))
