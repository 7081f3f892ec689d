"""A scoring job and its file, and what its workers report."""

import hashlib
import json
from typing import Literal, NamedTuple

from fer_ray.errors import UsageError
from fer_ray.scoring.manifest import listing_files
from fer_ray.scoring.totals import Totals
from fer_ray.storage.json_files import StoredModel, read_json
from fer_ray.storage.local import LOCK_FILE
from fer_ray.storage.output import Output

JOB_FILE = "_job.json"
PREPROCESSING = "grey, square, fer_ray.images.decode 3"
"""Part of the fingerprint. Change it whenever decoding or resizing gives other pixels."""

_IDENTITY = ("checkpoint", "tta", "detector", "preprocessing")  # determine the numbers in the output, with precision


class ScoringJob(StoredModel):
    """A scoring job, as its output stores it.

    ``batch_size`` and ``precision`` are the requested ones, perhaps None and ``auto``, until the first chunk is done.
    """

    format_version: Literal[3] = 3
    inputs: list[str]  # paths and URLs, as ``fer_ray.scoring.inputs.check_inputs`` returns them
    checkpoints: list[str]  # absolute paths and URLs of their folders
    checkpoint: str  # SHA-256 of the checkpoints' weights, configurations and int8 models
    tta: str  # one of ``fer_ray.config.tta_names.TTA_NAMES``
    faces: str  # as for ``fer_ray.images.faces.load_detector``
    detector: str  # name of the detector; empty without one
    format: str  # of the parts, ``parquet`` or ``csv``
    timeout_s: float  # seconds for reading and decoding one input
    batch_size: int | None  # images a forward pass, as sums of other sizes round differently
    precision: str = "auto"  # or ``float32``, ``bfloat16`` or ``int8``
    preprocessing: str = PREPROCESSING  # version of the way from file to pixels

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything but the precision that determines the numbers in the output."""
        identity = self.model_dump(include=set(_IDENTITY))
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Output) -> None:
        """Write the job file. It also marks the first listing as complete."""
        folder.write(JOB_FILE, self.model_dump_json(indent=2) + "\n")


class Done(NamedTuple):
    """A chunk whose part is written."""

    totals: Totals  # counts over its rows, with its seconds
    precision: str  # dtype of the computation
    batch_size: int  # images a forward pass
    halved: bool  # whether the batch size was halved because memory ran out


def resumed_job(folder: Output, request: ScoringJob) -> ScoringJob | None:
    """Return the job to resume; None where it was killed before its first listing was complete.

    ``UsageError`` if the output belongs to another job or stage, ``DataError`` if its job file is damaged.
    """
    output = folder.path_or_url
    if not folder.exists(JOB_FILE):
        before_job = ("_manifest-", "._manifest-", f".{JOB_FILE}", LOCK_FILE)
        if strange := [name for name in folder.names() if not name.startswith(before_job)]:
            raise UsageError(f"{output}: not the output of a scoring job, it holds {strange[0]} and no {JOB_FILE}.")
        folder.remove(*listing_files(folder))
        return None
    job = read_json(ScoringJob, folder.file(JOB_FILE), "Start again in another folder.")
    ours, theirs = request.model_dump(), job.model_dump()
    problems = [
        f"{output}: --resume with another {name}: the output was scored with {theirs[name] or 'none'}, the request is"
        f" {ours[name] or 'none'}. Resume with the previous value, or choose another output."
        for name in (*_IDENTITY, "precision", "format")
        if ours[name] != theirs[name] and "auto" not in (ours[name], theirs[name])
    ]
    if job.inputs != request.inputs:
        problems.append(
            f"{output}: --resume with other inputs: the job lists {', '.join(job.inputs)}. Name the same inputs in the"
            " same order; new files in them are found."
        )
    if problems:
        raise UsageError(problems)
    precision = request.precision if job.precision == "auto" else job.precision
    kept = {"precision": precision, "batch_size": request.batch_size or job.batch_size}
    return request.model_copy(update=kept)
