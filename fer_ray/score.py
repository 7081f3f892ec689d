"""Stage ``score``: label every file below the inputs, one row a file, whatever is wrong with it.

An actor with many threads reads, decodes and predicts a chunk of the file list in one call and writes it as a part: no
pixels travel through Ray, and the parts on disk are the whole state of a job.
"""

import json
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fer_ray.checkpoint_files import INFO_FILE, WEIGHTS_FILE, checkpoint_within
from fer_ray.data import manifest, parts
from fer_ray.data.score_job import Identity, can_resume, forget_job, sha256_of, write_job
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.files import claim_output, local_path, make_folder, recover_folder, write_whole
from fer_ray.progress import ProgressBar, duration, say
from fer_ray.provenance import record_start
from fer_ray.weights import SHIPPED_CHECKPOINT

SUMMARY_FILE = "summary.json"
_SPEED = (
    "scored_in_this_run",
    "seconds",
    "images_per_s",
    "seconds_from_first_batch",
    "images_per_s_from_first_batch",
)
_MAX_THREADS = 16  # an actor; with many more, they wait for Python's interpreter lock
_SPARE_CPUS = 0.1  # of an actor's last CPU, so that small tasks of other jobs fit beside it


@dataclass(frozen=True)
class ScoreResult:
    """A finished scoring job.

    Attributes:
        path: the folder of ``part-*.parquet`` and ``summary.json``.
        summary: the contents of ``summary.json``.
    """

    path: Path
    summary: dict[str, Any]


def score(
    checkpoint: Path | str | None,
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    tta: str = "flip",
    batch_size: int | None = None,
    resume: bool = False,
    max_error_rate: float = 0.01,
) -> ScoreResult:
    """Label files with a checkpoint and write one row a file (columns: ``fer_ray.data.parts``).

    On a cluster, checkpoint, inputs and output are on storage that every node sees under the same path.

    Args:
        checkpoint: a folder that ``train`` or ``tune`` wrote; None for the network that comes with the package.
        inputs: folders, with all that is below them, and single files.
        output: the folder to make; an interrupted job's with ``resume``.
        tta: the views averaged for each image; a name in ``fer_ray.learning.tta.VIEWS``.
        batch_size: images a forward pass in each thread; None for what measured well on the device.
        resume: score only what an interrupted job left of its own list of files.
        max_error_rate: share of files, 0 to 1, that may fail. With more, all is written and then the job fails.

    Raises:
        UsageError: an argument out of range, an output in use, or another job's with ``resume``.
        DataError: an input or the checkpoint is missing or not usable, or too many files failed.
    """
    began = time.time()
    _check_arguments(batch_size, max_error_rate)
    paths, folder = manifest.check_inputs(inputs), claim_output(output, resume)
    model = local_path(checkpoint or SHIPPED_CHECKPOINT)
    identity = _identify(model, tta)
    listed = resume and can_resume(folder, identity, paths)
    make_folder(folder)
    with _leaving_nothing(folder):
        _list_while_ray_starts(folder, paths, identity, listed)
        record_start(folder)
        sizes = manifest.chunk_sizes(folder)
        speed = _score_chunks(folder, model, tta, batch_size, sizes)
    totals = parts.count_parts(folder, sizes)
    job = {"checkpoint": str(model), "tta": tta, "inputs": list(map(str, paths)), "fingerprint": identity.fingerprint}
    summary = _summarise(totals, speed, time.time() - began) | job
    if not speed["files"] and (folder / SUMMARY_FILE).is_file():
        say("No file was left to score; the speed below is that of the run before.")
        former = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        summary |= {name: former[name] for name in _SPEED}
    write_whole(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    print(_describe(folder, summary))
    _check_errors(folder, totals, max_error_rate)
    return ScoreResult(folder, summary)


def _check_arguments(batch_size: int | None, max_error_rate: float) -> None:
    problems = []
    if batch_size is not None and batch_size < 1:
        problems.append(f"--batch-size {batch_size}: must be 1 or more, or auto.")
    if not 0 <= max_error_rate <= 1:
        problems.append(f"--max-error-rate {max_error_rate}: must be 0 to 1; 0.01 lets one file of a hundred fail.")
    if problems:
        raise UsageError(problems)


def _identify(model: Path, tta: str) -> Identity:
    """Hash the checkpoint's files without loading it, as importing torch here would delay the workers."""
    recover_folder(model)
    try:
        return Identity(sha256_of([model / WEIGHTS_FILE, model / INFO_FILE]), tta)
    except OSError:
        from fer_ray.learning.checkpoint import load_checkpoint

        load_checkpoint(model)  # raises, and says what is wrong
        raise


@contextmanager
def _leaving_nothing(folder: Path) -> Iterator[None]:
    """Take the list of files away again where a job fails before its first part, so that a mended call can start."""
    try:
        yield
    except FerRayError:
        if not any(folder.glob("part-*")):
            forget_job(folder)
        raise


def _list_while_ray_starts(folder: Path, inputs: list[Path], identity: Identity, listed: bool) -> None:
    from fer_ray.runtime import connect

    with ThreadPoolExecutor(1) as pool:
        listing = None if listed else pool.submit(manifest.write_manifest, folder, inputs)
        connect()
    if listing is not None:
        listing.result()
        write_job(folder, identity, inputs)


def _score_chunks(folder: Path, model: Path, tta: str, batch_size: int | None, sizes: list[int]) -> dict[str, float]:
    """Score the chunks that have no part yet, and return how many files that were and since when."""
    import ray

    todo = [chunk for chunk in range(len(sizes)) if not parts.part_file(folder, chunk).exists()]
    done = next((chunk for chunk in range(len(sizes)) if chunk not in set(todo)), None)
    if not todo:
        return {"files": 0, "began": time.time()}
    precision = "auto" if done is None else parts.precision_of(parts.part_file(folder, done))
    actors, threads, gpus = _plan()
    most = min(actors, len(todo))
    chunks = ray.data.from_items([{"chunk": chunk} for chunk in todo], override_num_blocks=min(len(todo), 64 * actors))
    results = chunks.map_batches(
        _ScoringActor,
        batch_size=1,
        fn_constructor_args=(folder, model, tta, batch_size, precision, threads),
        compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=most, max_size=most),
        num_cpus=threads - _SPARE_CPUS,
        num_gpus=gpus,
    )
    left, began = sum(sizes[chunk] for chunk in todo), time.time()
    with ProgressBar("scoring", sum(sizes), start=sum(sizes) - left) as bar:
        failed = 0
        for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
            for fault in batch["fault"]:
                if fault:
                    raise pickle.loads(fault)
            began, failed = min(began, *batch["began"]), failed + int(batch["failed"].sum())
            bar.advance(int(batch["files"].sum()), note=f"{failed:,} failed" if failed else None)
    return {"files": left, "began": began}


def _plan() -> tuple[int, int, int]:
    """Return the number of actors, and the threads and GPUs of each: an actor a GPU, else one for up to 16 cores."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpu:
        threads = min(_MAX_THREADS, *(int(node.get("CPU", 1) / node["GPU"]) for node in with_gpu))
        return sum(int(node["GPU"]) for node in with_gpu), max(1, threads), 1
    cores = [int(node.get("CPU", 0)) for node in nodes]

    def reached(threads: int) -> int:
        return sum(core // threads * threads for core in cores)

    # The widest actor that leaves few cores of unequal nodes idle.
    threads = max(width for width in range(1, _MAX_THREADS + 1) if reached(width) >= 0.9 * sum(cores))
    return max(1, reached(threads) // threads), threads, 0


class _ScoringActor:
    """Loads the scorer where it is needed: torch is not imported in the driver, which would delay the workers."""

    def __init__(self, *arguments: Any) -> None:
        from fer_ray.learning.chunk_scorer import ChunkScorer

        try:
            self.scorer, self.fault = ChunkScorer(*arguments), b""
        except FerRayError as error:  # raised here, it would reach the driver in pages of Ray's own words
            self.fault = pickle.dumps(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        began = time.time()
        files, failed = (0, 0) if self.fault else self.scorer.score(int(batch["chunk"][0]))
        return {"files": [files], "failed": [failed], "began": [began], "fault": [self.fault]}


def _summarise(totals: parts.Totals, speed: dict[str, float], seconds: float) -> dict[str, Any]:
    files, scored = totals.status.total(), totals.label.total()
    scoring = max(time.time() - speed["began"], 1e-9)
    return {
        "files": files,
        "by_status": dict(totals.status.most_common()),
        "by_label": {
            name: {"files": totals.label[name], "share": totals.label[name] / max(scored, 1)} for name in EMOTIONS
        },
        "scored_in_this_run": speed["files"],
        "seconds": seconds,
        "images_per_s": speed["files"] / seconds,
        "seconds_from_first_batch": scoring,
        "images_per_s_from_first_batch": speed["files"] / scoring,
        "precision": list(totals.precisions),
        "versions": {name: version(name) for name in ("fer_ray", "ray", "torch", "opencv-python-headless", "pillow")},
    }


def _describe(folder: Path, summary: dict[str, Any]) -> str:
    bad = {status: count for status, count in summary["by_status"].items() if status != "ok"}
    failed = "; ".join(f"{count:,} {status}" for status, count in bad.items())
    shares = ", ".join(f"{name} {of['share']:.1%}" for name, of in summary["by_label"].items())
    return "\n".join(
        [
            f"{summary['files']:,} rows, {sum(bad.values()):,} failed{': ' if failed else ''}{failed}",
            f"labels: {shares}",
            f"{summary['scored_in_this_run']:,} files in {duration(summary['seconds'])}:"
            f" {summary['images_per_s']:,.0f} images/s, {summary['images_per_s_from_first_batch']:,.0f} from the first"
            " batch on",
            f"output: {folder}",
        ]
    )


def _check_errors(folder: Path, totals: parts.Totals, max_error_rate: float) -> None:
    files = totals.status.total()
    failed = files - totals.status["ok"]
    if failed > max_error_rate * files:
        raise DataError(
            f"{failed:,} of {files:,} files failed, {failed / files:.2%}; --max-error-rate allows {max_error_rate:.2%}."
            f" All rows are in {folder}: look at those whose status isn't ok, and accept them with --resume and a"
            " higher --max-error-rate, or mend the files and score anew."
        )


def _split_off_checkpoint(paths: list[Path]) -> tuple[Path | None, list[Path]]:
    """Take the first path for a checkpoint where it is one, or holds one that was probably meant."""
    first = local_path(paths[0])
    recover_folder(first)
    named = any((first / file).is_file() or checkpoint_within(first, file) for file in (WEIGHTS_FILE, INFO_FILE))
    return (paths[0], paths[1:]) if named else (None, paths)


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[CHECKPOINT] INPUT...",
            help="Folder of a checkpoint, such as RUN/checkpoint; without one, the network that comes with fer_ray is"
            " used. Then folders, with all below them, and single files.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make, or an interrupted job's with --resume.")],
    tta: Annotated[str, typer.Option(help="Views averaged for each image: none, flip, ten_crop, full.")] = "flip",
    batch_size: Annotated[str, typer.Option(help="Images a forward pass in each thread, or auto.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Score what an interrupted job left.")] = False,
    max_error_rate: Annotated[float, typer.Option(help="Share of files, 0 to 1, that may fail.")] = 0.01,
) -> None:
    """Label every image in folders, one row a file in Parquet, whatever is wrong with the file."""
    if batch_size != "auto" and not batch_size.isdecimal():
        raise UsageError(f"--batch-size {batch_size}: must be a whole number or auto.")
    number = None if batch_size == "auto" else int(batch_size)
    checkpoint, inputs = _split_off_checkpoint(paths)
    if checkpoint is None:
        say("No CHECKPOINT named: labelling with the network that comes with fer_ray.")
    score(checkpoint, inputs, output, tta=tta, batch_size=number, resume=resume, max_error_rate=max_error_rate)


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["score", *sys.argv[1:]])
