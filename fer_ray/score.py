"""Stage ``score``: label the images of the inputs, one row an input, also where an input is broken."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["score", *sys.argv[1:]])

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fer_ray.config.stage_options import stage
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import DataError, UsageError
from fer_ray.images.faces import DETECT, load_detector, resolve_faces
from fer_ray.options import MOST_SHOWN, RAY_FROM, ScoreOptions
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.inputs import check_inputs, list_entries
from fer_ray.scoring.job import ScoringJob, Speed, resumed_job
from fer_ray.scoring.manifest import Manifest, add_listing
from fer_ray.scoring.parts import unwritten_chunks, written_chunks
from fer_ray.scoring.run import Runner, in_this_process, score_left
from fer_ray.scoring.summary import describe, print_rows, summarise, write_summary
from fer_ray.scoring.totals import Totals, count_parts
from fer_ray.storage.inputs import INFO_FILE, WEIGHTS_FILE, as_list, is_checkpoint, local_copy
from fer_ray.storage.local import recover_folder, sha256_of
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import Output, open_output
from fer_ray.storage.provenance import record_start
from fer_ray.weights import SHIPPED_CHECKPOINT

_FEW = 20  # inputs up to which each row is printed, also where there is an output


@dataclass(frozen=True)
class ScoreResult:
    """The output of a scoring job.

    Attributes:
        path: folder or prefix that holds ``part-*`` and ``summary.json``; None without an output.
        summary: the contents of ``summary.json``.
    """

    path: str | None
    summary: dict[str, Any]


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
    has_output = options.output is not None
    with _opened(options.output, options.resume, [*paths_or_urls, *models]) as folder:
        if not checkpoints:
            say("No CHECKPOINT named: labelling with the network that comes with fer_ray.")
        request = _request(options, paths_or_urls, models)
        resumed = resumed_job(folder, request) if options.resume else None
        job, speed, totals, end_ray = _score(folder, request, resumed, options)
        summary = summarise(job, totals, speed, time.time() - began)
        if not has_output or totals.files <= _FEW:
            print_rows(folder, options.format, as_csv=not has_output and not sys.stdout.isatty())
        if has_output:
            write_summary(folder, summary, totals, partial(_page, folder.path_or_url))
            print(describe(folder.path_or_url, summary))
        end_ray.join()
    if speed.no_crops:
        say(
            f"{amount(speed.no_crops, 'input')} of {speed.files:,} taken as faces, though larger or further from square"
            f" than crops of faces are. --faces {DETECT} finds the faces in photos."
        )
    path = folder.path_or_url if has_output else None
    _check_errors(totals, options.max_error_rate, path)
    return ScoreResult(path, summary)


def _page(path_or_url: str, folder: Path) -> str:
    # Imported here: the drawing modules take a second to import.
    from fer_ray.reporting.html import render_page
    from fer_ray.reporting.scoring import scoring_section

    return render_page("Scoring", [scoring_section(folder, path_or_url)])


def _request(options: ScoreOptions, inputs: list[str], checkpoints: list[str]) -> ScoringJob:
    """Return the job; its checkpoints are hashed and not loaded, as importing torch here would delay the workers."""
    faces, models = resolve_faces(options.faces), [local_copy(one) for one in checkpoints]
    detector = load_detector(faces)
    for model in models:
        recover_folder(model)
    try:
        hashed = sha256_of([model / file for model in models for file in (WEIGHTS_FILE, INFO_FILE)])
        # The int8 models are not part of it: one that is made later changes nothing of a job in another precision.
    except OSError:
        from fer_ray.inference.predictor import load_members

        load_members(checkpoints)  # raises an error that says what is wrong
        raise
    return ScoringJob(
        inputs=inputs,
        checkpoints=checkpoints,
        checkpoint=hashed,
        tta=options.tta,
        faces=faces,
        detector=detector.name if detector else "",
        format=options.format,
        timeout_s=options.timeout_s,
        precision=options.precision,
        batch_size=None if options.batch_size == "auto" else options.batch_size,
    )


@contextmanager
def _opened(output: Path | str | None, resume: bool, inputs: Sequence[str]) -> Iterator[Output]:
    """Yield the output; without one a temporary folder."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="fer_ray-") as temporary:
            yield Output.at(temporary)
    else:
        with open_output(output, resume, inputs, _has_rows) as opened:
            yield opened


def _has_rows(output: Output) -> bool:
    return any(name.startswith("part-") for name in output.names())


def _score(
    folder: Output, request: ScoringJob, resumed: ScoringJob | None, options: ScoreOptions
) -> tuple[ScoringJob, Speed, Totals, threading.Thread]:
    """List new inputs and score what is left.

    Returns:
        The job as computed, the speed, the counts over all rows, and a thread that ends the Ray that was started here.
    """
    is_ray_sure = options.ray or (options.ray is None and bool(os.environ.get("RAY_ADDRESS") or _has_gpus()))
    end_ray: Callable[[], object] = int
    stopped, began = threading.Event(), time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(_list_new, folder, request, resumed is not None, options.output is None, stopped)
        try:
            if is_ray_sure:
                end_ray = _start_ray()
            listed = listing.result()
        except BaseException:  # Ctrl-C: leaving the pool would wait for a long listing
            stopped.set()
            raise
    if not resumed:
        request.write(folder)
    record_start(folder)
    written = written_chunks(folder, request.format)
    totals = count_parts(folder, written, request.format)
    left = unwritten_chunks(Manifest(folder).listings, written)
    run: Runner = in_this_process
    if is_ray_sure or (options.ray is None and sum(chunk.files for chunk in left) >= RAY_FROM):
        end_ray = end_ray if is_ray_sure else _start_ray()
        from fer_ray.cluster.node_checks import require_seen_by_nodes
        from fer_ray.scoring.on_ray import in_actors

        require_seen_by_nodes([*request.inputs, *request.checkpoints], folder.path_or_url)
        run = partial(in_actors, gpus_per_actor=options.gpus_per_actor)
    job, speed = score_left(folder, resumed or request, left, run, totals)
    speed.by_stage["listing"] = listed - began
    ending = threading.Thread(target=end_ray)
    ending.start()
    return job, speed, totals, ending


def _has_gpus() -> bool:
    """Return whether this process sees a GPU, without importing torch."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _start_ray() -> Callable[[], object]:
    """Connect to Ray, and return what ends it: nothing where others have started it."""
    import ray

    from fer_ray.cluster.connect import connect

    is_others = ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))
    connect()
    return int if is_others else ray.shutdown


def _list_new(
    folder: Output, request: ScoringJob, is_resumed: bool, is_limited: bool, stopped: threading.Event
) -> float:
    """Add new inputs to the manifest, and return the moment of the end."""
    skipped = Counter[str]()
    entries = list_entries(request.inputs, lambda: skipped.update(["member"]), folder.path_or_url)
    found = add_listing(folder, _limited(entries, MOST_SHOWN if is_limited else None, stopped))
    if not found and not is_resumed:
        names = ", ".join(request.inputs)
        raise DataError(f"{names}: no images found (hidden files don't count). Name folders or lists that hold images.")
    if found and is_resumed:
        say(f"{amount(found, 'new input')} since the last run.")
    if others := skipped.total():
        say(f"Skipped {amount(others, 'member')} of containers whose names aren't those of images.")
    return time.monotonic()


def _limited(entries: Iterator[Entry], limit: int | None, stopped: threading.Event) -> Iterator[Entry]:
    for number, entry in enumerate(entries):
        if stopped.is_set():
            raise InterruptedError
        if number == limit:
            raise UsageError(
                f"more than {limit:,} inputs, whose rows are not printed. Name an --output folder for them."
            )
        yield entry


def _check_errors(totals: Totals, max_error_rate: float, output: str | None) -> None:
    if totals.failed > max_error_rate * totals.files:
        where, how = (f"in {output}", "--resume with ") if output else ("printed above", "")
        raise DataError(
            f"{totals.failed:,} of {totals.files:,} inputs failed, {totals.failed / totals.files:.2%}; --max-error-rate"
            f" allows {max_error_rate:.2%}. All rows are {where}: look at those whose status isn't ok. To accept them,"
            f" use {how}a higher --max-error-rate; otherwise repair the inputs and score again."
        )


def _split_off_checkpoints(paths: Sequence[Path | str]) -> tuple[Sequence[Path | str], Sequence[Path | str]]:
    """Split the paths at the first that neither is a checkpoint nor holds one."""
    first = next((number for number, path in enumerate(paths) if not is_checkpoint(path)), len(paths))
    late = [path for path in paths[first:] if is_checkpoint(path)]
    if late:
        raise UsageError([f"{path}: a checkpoint after an input. Name checkpoints first." for path in late])
    return paths[:first], paths[first:]


command = score.run
