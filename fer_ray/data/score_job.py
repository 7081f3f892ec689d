"""What a scoring job is: the identity that every part of its output shares, and the file that keeps it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fer_ray.data.manifest import MANIFEST_FILE, PARTIAL_FILE
from fer_ray.errors import UsageError
from fer_ray.files import write_whole
from fer_ray.provenance import PROVENANCE_FILE

JOB_FILE = "_job.json"
PREPROCESSING = "grey, square, fer_ray.data.images 1"
"""Part of the fingerprint: to be changed with any change of decoding or resizing that changes pixels."""

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Identity:
    """What decides the numbers in the output, besides the precision, which the parts themselves keep.

    Attributes:
        checkpoint: SHA-256 of the files that a checkpoint predicts with.
        tta: name of the views.
        preprocessing: from file to pixels.
    """

    checkpoint: str
    tta: str
    preprocessing: str = PREPROCESSING

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


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


def write_job(folder: Path, identity: Identity, inputs: Sequence[Path]) -> None:
    """Write the job file, which also says that the manifest is complete."""
    content = {"format_version": _FORMAT_VERSION, "identity": asdict(identity), "inputs": list(map(str, inputs))}
    write_whole(folder / JOB_FILE, json.dumps(content, indent=2) + "\n")


def can_resume(folder: Path, identity: Identity, inputs: Sequence[Path]) -> bool:
    """Say whether the output's manifest is complete, so that its parts count; else the listing is to be done again.

    Raises:
        UsageError: the output is another job's, or not one of this stage.
    """
    file = folder / JOB_FILE
    if not file.exists():
        strange = sorted(path.name for path in folder.iterdir() if not _before_job(path.name))
        if strange:
            raise UsageError(f"{folder}: not the output of a scoring job, it holds {strange[0]} and no {JOB_FILE}.")
        return False
    try:
        job = json.loads(file.read_text(encoding="utf-8"))
        version, former, listed = job["format_version"], Identity(**job["identity"]), job["inputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: not readable as a scoring job: {error!r}. Start anew in another folder.") from error
    if version != _FORMAT_VERSION:
        raise UsageError(f"{file}: format version {version}, expected {_FORMAT_VERSION}. Start anew in another folder.")
    problems = [
        f"{folder}: --resume with another {name}: it was scored with {old}, asked for is {asdict(identity)[name]}."
        " Resume with the former, or choose another output."
        for name, old in asdict(former).items()
        if old != asdict(identity)[name]
    ]
    if listed != list(map(str, inputs)):
        problems.append(
            f"{folder}: --resume with other inputs: it lists {', '.join(listed)}. Name the same in the same order."
        )
    if problems:
        raise UsageError(problems)
    return True


def forget_job(folder: Path) -> None:
    """Remove the list, the job file and the provenance, and the folder where nothing else is in it."""
    for name in (JOB_FILE, MANIFEST_FILE, PARTIAL_FILE, PROVENANCE_FILE):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _before_job(name: str) -> bool:
    """Say whether a file may lie in the output before the job file does."""
    return name in (MANIFEST_FILE, PARTIAL_FILE, f".{JOB_FILE}.partial")
