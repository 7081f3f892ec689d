"""Stage ``score``: label the images of the inputs, one row an input, also where an input is broken."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import DataError, UsageError
from fer_ray.images.faces import DETECT, NO_FACES, load_detector
from fer_ray.inference.tta_names import TTA_NAMES, tta_problem
from fer_ray.scoring import manifest, parts
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.inputs import check_apart, check_inputs, is_plain_folder, list_entries
from fer_ray.scoring.job import Identity, ScoringJob, ScoringOptions, Speed, forget_job, previous_job, sha256_of
from fer_ray.scoring.summary import describe, summarise, write_summary
from fer_ray.scoring.totals import Totals, count_parts
from fer_ray.storage.folder import INFO_FILE, WEIGHTS_FILE, Folder, claim_folder, is_checkpoint
from fer_ray.storage.inputs import local_copies
from fer_ray.storage.local import own_output, recover_folder
from fer_ray.storage.object_store import absolute, require_apart
from fer_ray.storage.provenance import PROVENANCE_FILE, record_start
from fer_ray.weights import SHIPPED_CHECKPOINT


@dataclass(frozen=True)
class ScoreResult:
    """The output of a scoring job.

    Attributes:
        path: folder or prefix that holds ``part-*`` and ``summary.json``.
        summary: the contents of ``summary.json``.
    """

    path: str
    summary: dict[str, Any]


def score(
    checkpoints: Path | str | Sequence[Path | str] | None,
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    tta: str = "flip",
    faces: str = NO_FACES,
    format: str = "parquet",
    batch_size: int | None = None,
    gpus_per_actor: float = 1,
    timeout_s: float = 60,
    resume: bool = False,
    max_error_rate: float = 0.01,
) -> ScoreResult:
    """Label images with one checkpoint or several and write one row an input (columns: ``fer_ray.scoring.parts``).

    On a cluster, checkpoints, local inputs and local outputs must be on storage that every node sees under the same
    path.

    Args:
        checkpoints: folders that ``train`` or ``tune`` wrote; None for the network that comes with the package.
        inputs: folders, files, patterns, lists, containers and URLs (``fer_ray.scoring.inputs``).
        output: a new folder, or an ``s3://`` or ``gs://`` prefix; with ``resume``, the output of an earlier job.
        tta: the views averaged for each image; one of ``fer_ray.inference.tta_names.TTA_NAMES``.
        faces: ``none`` takes each image as a face, ``detect`` finds the faces in it, ``MODULE:FACTORY`` finds them with
            a custom detector.
        format: of the parts: ``parquet`` or ``csv``.
        batch_size: images a forward pass; None to measure the fastest.
        gpus_per_actor: share of a GPU, above 0 to 1, where there are GPUs.
        timeout_s: seconds for reading and decoding one input.
        resume: score what an interrupted job left, and new inputs.
        max_error_rate: share of inputs, 0 to 1, that may fail. With more failures all rows are written, and the job
            fails.

    Raises:
        UsageError: an argument is out of range, the output is in use or lies in an input, or with ``resume`` it holds
            another job.
        DataError: an input or a checkpoint is missing or invalid, or too many inputs failed.
    """
    began = time.time()
    _check_arguments(tta, format, batch_size, gpus_per_actor, timeout_s, max_error_rate)
    paths_or_urls, folder = check_inputs(inputs), claim_folder(output, resume)
    check_apart(paths_or_urls, folder.shown)
    if not checkpoints:
        say("No CHECKPOINT named: labelling with the network that comes with fer_ray.")
    models = _absolute(checkpoints or SHIPPED_CHECKPOINT)
    require_apart(folder.shown, models)
    requested = ScoringJob(_identify(models, tta, faces), paths_or_urls, format)
    with _owned(folder, resume):
        job = previous_job(folder, requested) if resume else None
        listing_s = _list_while_ray_starts(folder, requested, job)
        with folder.as_local(PROVENANCE_FILE) as local:
            record_start(local)
        layout = parts.lay_out(manifest.read_chunks(folder))
        options = ScoringOptions(models, tta, faces, "auto", batch_size, timeout_s)
        job, speed = _score(folder, job or requested, options, layout, gpus_per_actor)
        speed.listing_s = listing_s
        folder.remove_folder(parts.PIECES)  # with what killed actors left unfinished in it
        totals = count_parts(folder, layout, format)
        facts = {
            "checkpoints": models,
            "tta": tta,
            "faces": faces,
            "precision": job.precision,
            "batch_size": job.batch_size,
            "inputs": paths_or_urls,
            "fingerprint": requested.identity.fingerprint,
        }
        summary = summarise(totals, speed, time.time() - began, facts)
        write_summary(folder, summary, totals, layout, lambda local: _page(local, folder.shown))
    print(describe(folder.shown, summary))
    _check_errors(folder, totals, max_error_rate)
    return ScoreResult(folder.shown, summary)


def _page(folder: Path, output: str) -> str:
    # Imported here: the drawing modules take a second to import.
    from fer_ray.reporting.html import render_page
    from fer_ray.reporting.scoring import scoring_section

    return render_page("Scoring", [scoring_section(folder, Path(output))])


def _check_arguments(
    tta: str, format: str, batch_size: int | None, gpus: float, timeout_s: float, max_error_rate: float
) -> None:
    problems = []
    if problem := tta_problem("--tta", tta):
        problems.append(problem)
    if format not in parts.FORMATS:
        problems.append(f"--format {format}: must be {' or '.join(parts.FORMATS)}.")
    if batch_size is not None and batch_size < 1:
        problems.append(f"--batch-size {batch_size}: must be 1 or more, or auto.")
    if not 0 < gpus <= 1:
        problems.append(f"--gpus-per-actor {gpus:g}: must be above 0 and at most 1; with 0.5 two actors share a GPU.")
    if not timeout_s > 0:
        problems.append(f"--timeout {timeout_s:g}: must be seconds above 0.")
    if not 0 <= max_error_rate <= 1:
        problems.append(
            f"--max-error-rate {max_error_rate}: must be 0 to 1; with 0.01 one input of a hundred may fail."
        )
    if problems:
        raise UsageError(problems)


def _absolute(checkpoints: Path | str | Sequence[Path | str]) -> list[str]:
    return [absolute(one) for one in ([checkpoints] if isinstance(checkpoints, (Path, str)) else checkpoints)]


def _identify(checkpoints: Sequence[str], tta: str, faces: str) -> Identity:
    """Hash the checkpoints' files without loading them: importing torch here would delay the workers."""
    detector, models = load_detector(faces), local_copies(checkpoints)
    for model in models:
        recover_folder(model)
    try:
        hashed = sha256_of([model / file for model in models for file in (WEIGHTS_FILE, INFO_FILE)])
    except OSError:
        from fer_ray.inference.predictor import load_members

        load_members(models)  # raises an error that says what is wrong
        raise
    return Identity(hashed, tta, detector.name if detector else "")


@contextmanager
def _owned(folder: Folder, resume: bool) -> Iterator[None]:
    """Lock a local output against other jobs of this machine.

    In an object store, two equal jobs write the same rows. A new job that fails before its first rows leaves nothing
    in the output, so that a corrected call can start.
    """

    def is_begun() -> bool:
        return any(name.startswith("part-") for name in folder.names()) or bool(folder.names(parts.PIECES))

    if folder.local:
        with own_output(folder.local, resume, "another job is writing there", is_begun):
            yield
        return
    try:
        yield
    except Exception:
        if not resume and not is_begun():
            forget_job(folder)
        raise


def _list_while_ray_starts(folder: Folder, requested: ScoringJob, job: ScoringJob | None) -> float:
    """List new inputs while Ray starts, and return the seconds that listing took."""
    from fer_ray.cluster.connect import connect

    stopped = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(_list_new, folder, requested, job, stopped)
        try:
            connect()
            seconds = listing.result()
        except BaseException:  # Ctrl-C: leaving the pool would wait for a long listing
            stopped.set()
            raise
    if job is None:
        requested.write(folder)
    return seconds


def _list_new(folder: Folder, requested: ScoringJob, job: ScoringJob | None, stopped: threading.Event) -> float:
    began, skipped = time.monotonic(), Counter[str]()
    entries = list_entries(requested.inputs, lambda: skipped.update(["member"]), folder.shown)
    is_plain = len(requested.inputs) == 1 and is_plain_folder(requested.inputs[0])
    found = manifest.add_listing(folder, _until(stopped, entries), may_repeat=not is_plain)
    if not found and job is None:
        names = ", ".join(requested.inputs)
        raise DataError(f"{names}: no images found (hidden files don't count). Name folders or lists that hold images.")
    if found and job:
        say(f"{amount(found, 'new input')} since the last run.")
    if others := skipped.total():
        say(f"Skipped {amount(others, 'member')} of containers whose names aren't those of images.")
    return time.monotonic() - began


def _until(stopped: threading.Event, entries: Iterator[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if stopped.is_set():
            raise InterruptedError
        yield entry


def _score(
    folder: Folder, job: ScoringJob, options: ScoringOptions, layout: Sequence[parts.OutputPart], gpus_per_actor: float
) -> tuple[ScoringJob, Speed]:
    from fer_ray.scoring.on_ray import score_parts

    return score_parts(folder, job, options, layout, gpus_per_actor)


def _check_errors(folder: Folder, totals: Totals, max_error_rate: float) -> None:
    if totals.failed > max_error_rate * totals.files:
        raise DataError(
            f"{totals.failed:,} of {totals.files:,} inputs failed, {totals.failed / totals.files:.2%}; --max-error-rate"
            f" allows {max_error_rate:.2%}. All rows are in {folder.shown}: look at those whose status isn't ok. To"
            " accept them, use --resume with a higher --max-error-rate; otherwise repair the inputs and score again."
        )


def _split_off_checkpoints(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the paths at the first that neither is a checkpoint nor holds one."""
    first = next((number for number, path in enumerate(paths) if not is_checkpoint(path)), len(paths))
    late = [path for path in paths[first:] if is_checkpoint(path)]
    if late:
        raise UsageError([f"{path}: a checkpoint after an input. Name checkpoints first." for path in late])
    return list(paths[:first]), list(paths[first:])


def command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[CHECKPOINT]... INPUT...",
            help="CHECKPOINT: folders such as RUN/checkpoint, which predict together; without one, the network that"
            " comes with fer_ray. INPUT: folders with all below them, images, 'patterns/*.jpg', lists of paths (.txt,"
            " .parquet), .zip and .tar files, Parquet with images, s3:// and gs:// prefixes.",
        ),
    ],
    output: Annotated[str, typer.Option(help="New folder or prefix, or with --resume that of an earlier job.")],
    tta: Annotated[str, typer.Option(help=f"Views averaged for each image: {', '.join(TTA_NAMES)}.")] = "flip",
    faces: Annotated[
        str,
        typer.Option(
            help=f"{NO_FACES}: each image is a face. {DETECT}: find the faces, one row each. MODULE:FACTORY: find them"
            " with your own detector."
        ),
    ] = NO_FACES,
    format: Annotated[str, typer.Option(help="Format of the part-* files: parquet or csv.")] = "parquet",
    batch_size: Annotated[str, typer.Option(help="Images a forward pass; auto measures the fastest.")] = "auto",
    gpus_per_actor: Annotated[
        float, typer.Option(help="Share of a GPU, above 0 to 1: with 0.5 two actors share a GPU.")
    ] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds for reading and decoding one input.")] = 60,
    resume: Annotated[bool, typer.Option("--resume", help="Score what an earlier job left, and new inputs.")] = False,
    max_error_rate: Annotated[float, typer.Option(help="Share of inputs, 0 to 1, that may fail.")] = 0.01,
) -> None:
    """Label images: one row an input in Parquet or CSV, also where an input is broken.

    A JPEG that its decoder calls corrupt has the status damaged. Smaller damage inside a JPEG stays unnoticed, because
    a JPEG has no checksum.
    """
    if batch_size != "auto" and not batch_size.isdecimal():
        raise UsageError(f"--batch-size {batch_size}: must be a whole number or auto.")
    checkpoints, inputs = _split_off_checkpoints(paths)
    score(
        checkpoints or None,
        inputs,
        output,
        tta=tta,
        faces=faces,
        format=format,
        batch_size=None if batch_size == "auto" else int(batch_size),
        gpus_per_actor=gpus_per_actor,
        timeout_s=timeout,
        resume=resume,
        max_error_rate=max_error_rate,
    )


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["score", *sys.argv[1:]])
