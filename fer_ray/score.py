"""Stage ``score``: label the images of the inputs, one row an input, also where an input is broken."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["score", *sys.argv[1:]])

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray.config.stage_options import stage
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import DataError, UsageError
from fer_ray.images.faces import load_detector
from fer_ray.options import ScoreOptions
from fer_ray.scoring import manifest, parts
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.inputs import check_apart, check_inputs, is_plain_folder, list_entries
from fer_ray.scoring.job import Identity, ScoringJob, ScoringOptions, Speed, previous_job, sha256_of
from fer_ray.scoring.summary import describe, summarise, write_summary
from fer_ray.scoring.totals import Totals, count_parts
from fer_ray.storage.inputs import INFO_FILE, WEIGHTS_FILE, as_list, is_checkpoint, local_copy
from fer_ray.storage.local import recover_folder
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import Output, open_output
from fer_ray.storage.provenance import record_start
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


@stage(ScoreOptions)
def score(options: ScoreOptions) -> ScoreResult:
    """Label images with one checkpoint or several and write one row an input (columns: ``fer_ray.scoring.parts``).

    Raises:
        UsageError: the output is in use or lies in an input, or with ``resume`` it holds another job.
        DataError: an input or a checkpoint is missing or invalid, or too many inputs failed.
    """
    began = time.time()
    checkpoints, inputs = options.checkpoints, options.inputs
    if checkpoints is None:
        checkpoints, inputs = _split_off_checkpoints(inputs)
    paths_or_urls, dest = check_inputs(inputs), Output.at(options.output)
    check_apart(paths_or_urls, dest.path_or_url)
    if not checkpoints:
        say("No CHECKPOINT named: labelling with the network that comes with fer_ray.")
    models = [absolute(one) for one in as_list(checkpoints or SHIPPED_CHECKPOINT)]
    with open_output(dest, options.resume, models, _has_rows) as folder:
        requested = ScoringJob(_identify(models, options.tta, options.faces), paths_or_urls, options.format)
        job = previous_job(folder, requested) if options.resume else None
        listing_s = _list_while_ray_starts(folder, requested, job)
        record_start(folder)
        layout = parts.lay_out(manifest.read_chunks(folder))
        batch_size = None if options.batch_size == "auto" else options.batch_size
        how = ScoringOptions(models, options.tta, options.faces, "auto", batch_size, options.timeout_s)
        job, speed = _score(folder, job or requested, how, layout, options.gpus_per_actor)
        speed.listing_s = listing_s
        folder.within(parts.PIECES).clear()  # with what killed actors left unfinished in it
        totals = count_parts(folder, layout, options.format)
        facts = {
            "checkpoints": models,
            "tta": options.tta,
            "faces": options.faces,
            "precision": job.precision,
            "batch_size": job.batch_size,
            "inputs": paths_or_urls,
            "fingerprint": requested.identity.fingerprint,
        }
        summary = summarise(totals, speed, time.time() - began, facts)
        write_summary(folder, summary, totals, layout, lambda local: _page(local, folder.path_or_url))
    print(describe(folder.path_or_url, summary))
    _check_errors(folder, totals, options.max_error_rate)
    return ScoreResult(folder.path_or_url, summary)


def _page(folder: Path, path_or_url: str) -> str:
    # Imported here: the drawing modules take a second to import.
    from fer_ray.reporting.html import render_page
    from fer_ray.reporting.scoring import scoring_section

    return render_page("Scoring", [scoring_section(folder, path_or_url)])


def _identify(checkpoints: Sequence[str], tta: str, faces: str) -> Identity:
    """Hash the checkpoints' files without loading them: importing torch here would delay the workers."""
    detector, models = load_detector(faces), [local_copy(one) for one in checkpoints]
    for model in models:
        recover_folder(model)
    try:
        hashed = sha256_of([model / file for model in models for file in (WEIGHTS_FILE, INFO_FILE)])
    except OSError:
        from fer_ray.inference.predictor import load_members

        load_members(checkpoints)  # raises an error that says what is wrong
        raise
    return Identity(hashed, tta, detector.name if detector else "")


def _has_rows(output: Output) -> bool:
    return any(name.startswith("part-") for name in output.names()) or bool(output.names(parts.PIECES))


def _list_while_ray_starts(folder: Output, requested: ScoringJob, job: ScoringJob | None) -> float:
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


def _list_new(folder: Output, requested: ScoringJob, job: ScoringJob | None, stopped: threading.Event) -> float:
    began, skipped = time.monotonic(), Counter[str]()
    entries = list_entries(requested.inputs, lambda: skipped.update(["member"]), folder.path_or_url)
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
    folder: Output, job: ScoringJob, options: ScoringOptions, layout: Sequence[parts.OutputPart], gpus_per_actor: float
) -> tuple[ScoringJob, Speed]:
    from fer_ray.scoring.on_ray import score_parts

    return score_parts(folder, job, options, layout, gpus_per_actor)


def _check_errors(folder: Output, totals: Totals, max_error_rate: float) -> None:
    if totals.failed > max_error_rate * totals.files:
        raise DataError(
            f"{totals.failed:,} of {totals.files:,} inputs failed, {totals.failed / totals.files:.2%}; --max-error-rate"
            f" allows {max_error_rate:.2%}. All rows are in {folder.path_or_url}: look at those whose status isn't ok."
            " To accept them, use --resume with a higher --max-error-rate; otherwise repair the inputs and score again."
        )


def _split_off_checkpoints(paths: Sequence[Path | str]) -> tuple[Sequence[Path | str], Sequence[Path | str]]:
    """Split the paths at the first that neither is a checkpoint nor holds one."""
    first = next((number for number, path in enumerate(paths) if not is_checkpoint(path)), len(paths))
    late = [path for path in paths[first:] if is_checkpoint(path)]
    if late:
        raise UsageError([f"{path}: a checkpoint after an input. Name checkpoints first." for path in late])
    return paths[:first], paths[first:]


command = score.run
