"""Stage ``score``: label the images of the inputs, one row an input, also where an input is broken."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["score", *sys.argv[1:]])

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from fer_ray.config.options import MOST_SHOWN, RAY_FROM, ScoreOptions
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import DataError, UsageError
from fer_ray.images.faces import DETECT, load_detector, resolve_faces
from fer_ray.scoring.inputs import check_inputs, list_entries
from fer_ray.scoring.job import ScoringJob, resumed_job
from fer_ray.scoring.manifest import Manifest, add_listing
from fer_ray.scoring.parts import unwritten_chunks, written_chunks
from fer_ray.scoring.run import Runner, in_this_process, score_left
from fer_ray.scoring.summary import describe, print_rows, read_samples, summarise, write_summary
from fer_ray.scoring.totals import Totals, count_parts
from fer_ray.storage.inputs import INFO_FILE, INT8_FILE, WEIGHTS_FILE, as_list, is_checkpoint, local_copy
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import Output, open_output
from fer_ray.storage.provenance import record_start
from fer_ray.weights import SHIPPED_CHECKPOINT

_FEW = 20  # inputs up to which each row is printed, also where there is an output


@dataclass(frozen=True)
class ScoreResult:
    """The output of a scoring job."""

    path: str | None  # folder or prefix that holds ``part-*`` and ``summary.json``; None without an output
    summary: dict[str, Any]  # the contents of ``summary.json``


@stage(ScoreOptions)
def score(options: ScoreOptions) -> ScoreResult:
    """Label images with one checkpoint or several and write one row an input (columns: ``fer_ray.scoring.parts``).

    Without an output the rows are printed.

    Raises:
        UsageError: the output is in use or lies in an input, or with ``resume`` it holds another job.
        DataError: an input or a checkpoint is missing or invalid, or too many inputs failed.
    """
    began = time.time()
    checkpoints, inputs = options.checkpoints, options.inputs
    if checkpoints is None:
        checkpoints, inputs = _split_off_checkpoints(inputs)
    paths_or_urls = check_inputs(inputs)
    models = [absolute(one) for one in as_list(checkpoints or SHIPPED_CHECKPOINT)]
    with ExitStack() as on_end:
        folder = _opened(options, [*paths_or_urls, *models], on_end)
        request = _request(options, paths_or_urls, models)
        if not checkpoints:
            say("No CHECKPOINT named: labelling with the network that comes with fer_ray.")
        job, totals, files = _score(folder, request, options)
        summary = summarise(job, totals, files, began)
        if options.output is None or totals.files <= _FEW:
            print_rows(folder, options.format, as_csv=options.output is None and not sys.stdout.isatty())
        path = None
        if options.output is not None:
            text, path = describe(folder.path_or_url, summary), folder.path_or_url
            summary = write_summary(folder, summary, totals.samples, partial(_page, path))
            print(text)
    if totals.no_crops:
        say(
            f"{amount(totals.no_crops, 'input')} of {files:,} taken as faces, though larger or further from"
            f" square than crops of faces are. --faces {DETECT} finds the faces in photos."
        )
    _check_errors(totals, options.max_error_rate, path)
    return ScoreResult(path, summary)


def _opened(options: ScoreOptions, inputs: Sequence[str], on_end: ExitStack) -> Output:
    """Return the output, a temporary folder without one, until ``on_end`` closes it."""
    if options.output is None:
        return Output.at(on_end.enter_context(tempfile.TemporaryDirectory(prefix="fer_ray-")))
    has_rows = partial(written_chunks, format=options.format)
    return on_end.enter_context(open_output(options.output, options.resume, inputs, has_rows))


def _page(path_or_url: str, folder: Path) -> str:
    # Imported here: the drawing modules take a second to import.
    from fer_ray.reporting.html import render_page
    from fer_ray.reporting.scoring import scoring_section

    return render_page("Scoring", [scoring_section(folder, path_or_url)])


def _request(options: ScoreOptions, inputs: list[str], checkpoints: list[str]) -> ScoringJob:
    """Return the job; its checkpoints are hashed and not loaded, as importing torch here would delay the workers."""
    faces, models = resolve_faces(options.faces), [local_copy(one) for one in checkpoints]
    detector = load_detector(faces)
    try:
        files = [model / file for model in models for file in (WEIGHTS_FILE, INFO_FILE)]
        files += [model / INT8_FILE for model in models if (model / INT8_FILE).is_file()]
        digests = [sha256(file.read_bytes()) for file in files]
    except OSError:
        from fer_ray.inference.predictor import load_members

        load_members(checkpoints)  # raises an error that says what is wrong
        raise
    return ScoringJob(
        inputs=inputs,
        checkpoints=checkpoints,
        checkpoint=sha256(b"".join(one.digest() for one in digests)).hexdigest(),
        tta=options.tta,
        faces=faces,
        detector=detector.name if detector else "",
        format=options.format,
        timeout_s=options.timeout_s,
        precision=options.precision,
        batch_size=None if options.batch_size == "auto" else options.batch_size,
    )


def _score(folder: Output, request: ScoringJob, options: ScoreOptions) -> tuple[ScoringJob, Totals, int]:
    """Score new inputs and what is left; return the job as computed, the counts, and the number of inputs scored."""
    resumed = resumed_job(folder, request) if options.resume else None
    listing_s = _list_new(folder, request, resumed is not None, options.output is None)
    if not resumed:
        request.write(folder)
    record_start(folder)
    written = written_chunks(folder, request.format)
    totals = count_parts(folder, written, request.format)
    totals.samples = read_samples(folder)
    left = unwritten_chunks(Manifest(folder).listings, written)
    files, job = sum(chunk.files for chunk in left), resumed or request
    if left:
        job = score_left(folder, job, left, _runner(folder, request, options, files), totals)
    totals.seconds["listing"] = listing_s
    return job, totals, files


def _runner(folder: Output, request: ScoringJob, options: ScoreOptions, files: int) -> Runner:
    """Return what scores the chunks, on Ray or in this process."""
    uses_ray = options.ray
    if uses_ray is None:
        uses_ray = bool(os.environ.get("RAY_ADDRESS")) or _has_gpus() or files >= RAY_FROM
    if not uses_ray:
        return in_this_process
    from fer_ray.cluster.connect import connect
    from fer_ray.cluster.node_checks import require_seen_by_nodes
    from fer_ray.scoring.on_ray import in_actors

    connect()
    require_seen_by_nodes([*request.inputs, *request.checkpoints], folder.path_or_url)
    return partial(in_actors, gpus_per_actor=options.gpus_per_actor)


def _has_gpus() -> bool:
    """Return whether this process sees a GPU, without importing torch."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _list_new(folder: Output, request: ScoringJob, is_resumed: bool, is_printed: bool) -> float:
    """Add new inputs to the manifest; return the seconds."""
    began = time.monotonic()
    skipped = Counter[str]()
    entries = list_entries(request.inputs, lambda: skipped.update(["member"]), folder.path_or_url)
    found = add_listing(folder, islice(entries, MOST_SHOWN + 1) if is_printed else entries)
    if is_printed and found > MOST_SHOWN:
        raise UsageError(f"more than {MOST_SHOWN:,} inputs, whose rows are not printed. Name an --output for them.")
    if not found and not is_resumed:
        names = ", ".join(request.inputs)
        raise DataError(f"{names}: no images found (hidden files don't count). Name folders or lists that hold images.")
    if found and is_resumed:
        say(f"{amount(found, 'new input')} since the last run.")
    if skipped:
        say(f"Skipped {amount(skipped.total(), 'member')} of containers whose names aren't those of images.")
    return time.monotonic() - began


def _check_errors(totals: Totals, max_error_rate: float, output: str | None) -> None:
    if totals.failed > max_error_rate * totals.files:
        where, how = (f"in {output}", "--resume with ") if output else ("printed above", "")
        raise DataError(
            f"{totals.failed:,} of {totals.files:,} inputs failed, {totals.failed / totals.files:.2%}; --max-error-rate"
            f" allows {max_error_rate:.2%}. All rows are {where}: look at those whose status isn't ok. To accept them,"
            f" use {how}a higher --max-error-rate; otherwise repair the inputs and score them into a new output."
        )


def _split_off_checkpoints(paths: Sequence[Path | str]) -> tuple[Sequence[Path | str], Sequence[Path | str]]:
    """Split the paths at the first that neither is a checkpoint nor holds one."""
    first = next((number for number, path in enumerate(paths) if not is_checkpoint(path)), len(paths))
    late = [path for path in paths[first:] if is_checkpoint(path)]
    if late:
        raise UsageError([f"{path}: a checkpoint after an input. Name checkpoints first." for path in late])
    return paths[:first], paths[first:]


command = score.run
