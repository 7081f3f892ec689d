"""Score with Ray Data: actors read, decode, predict and write chunks of the manifest.

No pixels go through Ray, and the files on disk are the whole state of a job.
"""

import math
import pickle
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import ray

from fer_ray.cluster.connect import hide_unasked_gpus, nodes, require_running
from fer_ray.cluster.metrics import count_images
from fer_ray.cluster.node_checks import require_seen_by_nodes
from fer_ray.cluster.resources import fitting
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount
from fer_ray.errors import FerRayError
from fer_ray.scoring.job import ChunkResult, ScoringJob, ScoringOptions, Speed, as_computed
from fer_ray.scoring.manifest import Chunk
from fer_ray.scoring.parts import OutputPart, finished, merge, piece_name
from fer_ray.storage.output import Output

T = TypeVar("T")

_MAX_THREADS = 16  # that decode for a GPU; more of them only wait for Python's interpreter lock
_SPARE_CPUS = 0.1  # of an actor's last CPU, left for small tasks of other jobs
_AT_ONCE = 2  # chunks of an actor: threads that are done with one start the next


class Done(NamedTuple):
    """A chunk that was scored.

    Attributes:
        chunk: its number.
        scored: its result.
        began: when its actor started it, seconds since the epoch.
        precision: dtype of the computation.
        batch_size: images a forward pass.
        halved: whether the batch size was halved because memory ran out.
    """

    chunk: int
    scored: ChunkResult
    began: float
    precision: str
    batch_size: int
    halved: bool


class ActorPlan(NamedTuple):
    """Actors, and the threads and GPUs of each."""

    actors: int
    threads: int
    gpus: float


def plan(gpus_per_actor: float = 1) -> ActorPlan:
    """Return the actors that fit the cluster: those that share its GPUs, or one a core.

    Two threads of one process decode small images no faster than one: each read and each decoding releases Python's
    interpreter lock and waits for it again.
    """
    held = nodes()
    actors = [fitting(node, {"GPU": gpus_per_actor, "CPU": 1 - _SPARE_CPUS}) for node in held]
    if any(actors):
        cores = (int(node["CPU"] / count) for node, count in zip(held, actors, strict=True) if count)
        return ActorPlan(sum(actors), max(1, min(_MAX_THREADS, *cores)), gpus_per_actor)
    return ActorPlan(max(1, sum(int(node.get("CPU", 0)) for node in held)), 1, 0)


def score_parts(
    folder: Output, job: ScoringJob, options: ScoringOptions, layout: Sequence[OutputPart], gpus_per_actor: float
) -> tuple[ScoringJob, Speed]:
    """Score the chunks that have no rows yet, make parts of their pieces; return the job as computed and what it took.

    Args:
        folder: the output, with its manifest.
        job: as it was so far.
        options: but for what the job has begun to compute with.
        layout: all parts of the job.
        gpus_per_actor: a part of a GPU, above 0 to 1.

    Raises:
        FerRayError: an actor rejected the options, or Ray died.
    """
    require_seen_by_nodes([*job.inputs, *options.checkpoints], folder.path_or_url)
    written, pieces = finished(folder, layout, job.format)
    left = {part.number: set(part.chunks) - pieces for part in layout if part.number not in written}
    for part in layout:
        if part.number in written:  # a kill struck before they were removed
            folder.remove(*(piece_name(chunk) for chunk in part.chunks if chunk in pieces))
        elif not left[part.number]:
            merge(folder, part, job.format)
    part_of = {number: part for part in layout for number in left.get(part.number, ())}
    todo = {number: part.chunks[number] for number, part in part_of.items()}
    speed = Speed(sum(chunk.files for chunk in todo.values()))
    if not todo:
        return job, speed
    planned = plan(gpus_per_actor)
    speed.threads = planned.threads * min(planned.actors, len(todo))
    options = replace(
        options, precision=job.precision or options.precision, batch_size=options.batch_size or job.batch_size
    )
    total, failed, first, least = sum(part.files for part in layout), 0, math.inf, math.inf
    with ProgressBar("scoring", total, start=total - speed.files) as bar:
        for one in score_chunks(folder, options, todo, planned):
            job = as_computed(job, folder, one.precision, one.batch_size)
            if one.halved and one.batch_size < least:
                least = one.batch_size
                job = replace(job, batch_size=one.batch_size)
                job.write(folder)
                say(f"Memory ran out: from now on {amount(one.batch_size, 'image')} a forward pass (--batch-size).")
            first = min(first, one.began)
            speed.spent.add(one.scored.spent)
            part = part_of[one.chunk]
            left[part.number].discard(one.chunk)
            if not left[part.number]:
                merge(folder, part, job.format)
            count_images("score", **one.scored.by_status)
            failed += one.scored.failed
            bar.advance(one.scored.files, note=f"{failed:,} failed" if failed else None)
    speed.seconds = time.time() - first
    return job, speed


def score_chunks(
    folder: Output, options: ScoringOptions, chunks: dict[int, Chunk], planned: ActorPlan
) -> Iterator[Done]:
    """Score chunks, given by number, and yield each when its piece is written.

    Raises:
        FerRayError: an actor rejected the options, or Ray died.
    """
    most = min(planned.actors, len(chunks))
    rows = [{"chunk": number} | vars(chunk) for number, chunk in chunks.items()]
    results = ray.data.from_items(rows, override_num_blocks=min(len(rows), 64 * most)).map_batches(
        _ScoringActor,
        batch_size=1,
        fn_constructor_args=(folder.path_or_url, options, planned.threads, planned.gpus),
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=most,
            max_size=len(chunks),  # where nodes join; beyond what there is, Ray Data starts none
            max_tasks_in_flight_per_actor=2 * _AT_ONCE,
            max_concurrent_calls_per_actor=_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        num_cpus=planned.threads - _SPARE_CPUS,
        num_gpus=planned.gpus,
    )
    for batch in _until_ray_dies(results.iter_batches(batch_size=None, prefetch_batches=0)):
        for packed in batch["done"]:
            done = pickle.loads(packed)
            if isinstance(done, FerRayError):
                raise done
            yield done


def _until_ray_dies(batches: Iterable[T]) -> Iterator[T]:
    try:
        yield from batches
    except ray.exceptions.RayError as error:
        kept = "The rows written so far are kept: continue with --resume."
        try:
            require_running()
        except FerRayError as died:
            raise FerRayError(f"{died} {kept}") from None
        what = f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}"
        raise FerRayError(f"Ray ended the job: {what}. {kept}") from error


class _ScoringActor:
    """Loads the scorer in the actor's process."""

    def __init__(self, folder: Path | str, options: ScoringOptions, threads: int, gpu: float) -> None:
        hide_unasked_gpus()
        from fer_ray.scoring.chunk_scorer import ChunkScorer

        self.output = folder
        try:
            self.scorer, self.fault = ChunkScorer(Output.at(folder), options, threads, gpu), b""
        except FerRayError as error:  # raised here, it would reach the driver inside Ray's own traceback
            self.fault = pickle.dumps(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        if self.fault:
            return {"done": [self.fault]}
        began, number = time.time(), int(batch["chunk"][0])
        chunk = Chunk(str(batch["manifest"][0]), int(batch["group"][0]), int(batch["files"][0]))
        scorer = self.scorer
        try:
            scored = scorer.score(number, chunk)
            done: Done | FerRayError = Done(number, scored, began, scorer.precision, scorer.batch_size, scorer.halved)
        except FerRayError as error:
            done = error
        except OSError as error:  # a full disk, or an object store that refuses; problems of inputs are rows
            done = FerRayError(
                f"{self.output}: rows can't be written: {error}. Repair that and continue with --resume."
            )
        return {"done": [pickle.dumps(done)]}
