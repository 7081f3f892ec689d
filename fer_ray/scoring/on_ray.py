"""Score with Ray Data: actors take chunks of what is left, and read, decode, predict and write them.

No pixels go through Ray, and the files on disk are the whole state of a job.
"""

import pickle
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np
import ray

from fer_ray.cluster.connect import hide_unrequested_gpus, nodes, on_this_node, require_running
from fer_ray.cluster.metrics import count_images
from fer_ray.cluster.resources import fitting
from fer_ray.errors import FerRayError
from fer_ray.scoring.job import Done, ScoringJob
from fer_ray.scoring.manifest import Chunk
from fer_ray.scoring.run import LeftInputs, cant_write
from fer_ray.storage.output import Output

_MAX_THREADS = 16  # that decode for a GPU; more of them only wait for Python's interpreter lock
_SPARE_CPUS = 0.1  # of an actor's last CPU, left for small tasks of other jobs
_AT_ONCE = 2  # chunks of an actor: threads that are done with one start the next
_CALLS, _FILES_A_CALL, _MOST_BLOCKS = 64, 1024, 4096  # calls of an actor at least; files a call at most


def plan(gpus_per_actor: float = 1) -> tuple[int, int, float]:
    """Return the number of actors that fit the cluster, and the threads and GPUs of each.

    The actors share the cluster's GPUs, or there is one a core.
    Two threads of one process decode small images no faster than one: each read and each decoding releases Python's
    interpreter lock and waits for it again.
    """
    held = nodes()
    actors = [fitting(node, {"GPU": gpus_per_actor, "CPU": 1 - _SPARE_CPUS}) for node in held]
    if any(actors):
        cores = (int(node["CPU"] / count) for node, count in zip(held, actors, strict=True) if count)
        return sum(actors), max(1, min(_MAX_THREADS, *cores)), gpus_per_actor
    return max(1, sum(int(node.get("CPU", 0)) for node in held)), 1, 0


def in_actors(
    folder: Output, job: ScoringJob, left: Sequence[Chunk], gpus_per_actor: float
) -> tuple[int, Generator[Done]]:
    """Score in actors of Ray, each with a share of a GPU, above 0 to 1; a ``Runner``.

    Ray Data hands out calls, and each call takes a chunk of what is left: so fast actors get more and larger chunks.
    """
    actors, threads, gpus = plan(gpus_per_actor)
    files = sum(chunk.files for chunk in left)
    calls = max(_CALLS * actors, files // _FILES_A_CALL) + len(left)
    inputs = (
        ray.remote(LeftInputs)
        .options(num_cpus=0, scheduling_strategy=on_this_node())
        .remote(left, actors * _AT_ONCE, calls)
    )
    results = ray.data.from_items(list(range(calls)), override_num_blocks=min(calls, _MOST_BLOCKS)).map_batches(
        _ScoringActor,
        batch_size=1,
        fn_constructor_args=(folder.path_or_url, job, inputs, threads, gpus),
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=actors,
            max_size=calls,  # where nodes join; beyond what there is, Ray Data starts none
            max_tasks_in_flight_per_actor=2 * _AT_ONCE,
            max_concurrent_calls_per_actor=_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        num_cpus=threads - _SPARE_CPUS,
        num_gpus=gpus,
    )
    batches = results.iter_batches(batch_size=None, prefetch_batches=0)
    return threads * actors, _written(batches)


def _written(batches: Iterable[Any]) -> Generator[Done]:
    try:
        for batch in batches:
            for done in filter(None, map(pickle.loads, batch["done"])):
                if isinstance(done, FerRayError):
                    raise done
                count_images("score", **done.totals.status)
                yield done
    except ray.exceptions.RayError as error:
        kept = "The rows written so far are kept: continue with --resume."
        try:
            require_running()
        except FerRayError as died:
            raise FerRayError(f"{died} {kept}") from None
        what = f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}"
        raise FerRayError(f"Ray ended the job: {what}. {kept}") from error


class _ScoringActor:
    def __init__(self, output: str, job: ScoringJob, inputs: Any, threads: int, gpu: float) -> None:
        hide_unrequested_gpus()
        from fer_ray.scoring.chunk_scorer import ChunkScorer

        self.output, self.inputs, self.fault = output, inputs, b""
        try:
            self.scorer = ChunkScorer(Output.at(output), job, threads, gpu)
        except FerRayError as error:  # raised here, it would reach the driver inside Ray's own traceback
            self.fault = pickle.dumps(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        if self.fault:
            return {"done": [self.fault]}
        call = int(batch["item"][0])

        def take(files: int, multiple: int) -> Chunk | None:
            chunk: Chunk | None = ray.get(self.inputs.take.remote(files, multiple, call))
            return chunk

        try:
            done: Done | FerRayError | None = self.scorer.score_next(take)
        except FerRayError as error:
            done = error
        except OSError as error:
            done = cant_write(self.output, error)
        return {"done": [pickle.dumps(done)]}
