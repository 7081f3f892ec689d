"""Run a scoring job: hand out what is left of it in chunks, and keep the books on what is written."""

import math
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext

from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount
from fer_ray.errors import FerRayError
from fer_ray.scoring.job import Done, ScoringJob
from fer_ray.scoring.manifest import Chunk
from fer_ray.scoring.totals import Totals
from fer_ray.storage.output import Output

_QUIET_INPUTS = 20  # of a job that is over before a progress bar says anything
_MOST_THREADS = 16
_SHARE = 2  # chunks that each worker still gets of what is left, so that all end at about the same time
_LEAST = 8  # a chunk is no smaller than an eighth of what its worker wants


class LeftInputs:
    """What is left of a job, the inputs without rows, handed out in chunks to ``workers`` calls of a scorer at once.

    There will be so many ``calls`` to ``take``, by different callers; None for as many as it takes.
    """

    def __init__(self, chunks: Sequence[Chunk], workers: int = 1, calls: int | None = None) -> None:
        self._chunks, self._workers, self._calls = list(reversed(chunks)), workers, calls
        self._left = sum(chunk.files for chunk in chunks)
        self._taken = dict[int, Chunk | None]()

    def take(self, files: int, multiple: int, caller: int | None = None) -> Chunk | None:
        """Return the next chunk, of so many ``files`` if possible; None when none is left.

        It has a ``multiple`` of inputs, but for the end of a listing or of what was left. A caller that asks again,
        after its process has died, gets the same chunk again.
        """
        if caller is not None and caller in self._taken:
            return self._taken[caller]
        chunk = None
        if self._chunks:
            if self._workers > 1:
                files = min(files, max(files // _LEAST, self._left // (_SHARE * self._workers)))
            if self._calls:
                calls = self._calls - len(self._taken) - len(self._chunks)  # each chunk left takes one in any case
                files = max(files, math.ceil(self._left / max(1, calls)))
            first = self._chunks.pop()
            chunk = Chunk(first.first, min(first.files, max(1, round(files / multiple)) * multiple))
            if rest := first.files - chunk.files:
                self._chunks.append(Chunk(chunk.end, rest))
            self._left -= chunk.files
        if caller is not None:
            self._taken[caller] = chunk
        return chunk


Runner = Callable[[Output, ScoringJob, Sequence[Chunk]], tuple[int, Generator[Done]]]
"""Starts to score chunks, and returns the number of its threads and what is written, as it is written."""


def score_left(folder: Output, job: ScoringJob, left: Sequence[Chunk], run: Runner, totals: Totals) -> ScoringJob:
    """Score the inputs without rows by ``run``, add their rows to ``totals``, and return the job as computed.

    ``FerRayError`` if a worker rejected the job, rows can't be written, or Ray died.
    """
    threads, written = run(folder, job, left)
    all_files = totals.files + sum(chunk.files for chunk in left)
    bar = ProgressBar("scoring", all_files, start=totals.files)
    with bar if all_files - totals.files > _QUIET_INPUTS else nullcontext(), closing(written):
        for one in written:
            if job.precision == "auto" or (one.halved and one.batch_size < (job.batch_size or math.inf)):
                job = job.model_copy(update={"precision": one.precision, "batch_size": one.batch_size})
                job.write(folder)
                if one.halved:
                    images = amount(one.batch_size, "image")
                    say(f"Memory ran out: from now on {images} a forward pass (--batch-size).")
            totals.add(one.totals)
            bar.advance(one.totals.files, note=f"{totals.failed:,} failed" if totals.failed else None)
            if totals.files == all_files:
                break
    if totals.files < all_files:
        raise RuntimeError(f"{all_files - totals.files:,} inputs were not scored")
    for stage in totals.seconds:
        totals.seconds[stage] /= threads
    return job


def in_this_process(folder: Output, job: ScoringJob, left: Sequence[Chunk]) -> tuple[int, Generator[Done]]:
    """Score in this process's threads; a ``Runner``."""
    from fer_ray.scoring.chunk_scorer import ChunkScorer

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(_MOST_THREADS, cores)
    scorer, inputs = ChunkScorer(folder, job, threads), LeftInputs(left)

    def written() -> Generator[Done]:
        try:
            while done := scorer.score_next(inputs.take):
                yield done
        except OSError as error:
            raise cant_write(folder.path_or_url, error) from error
        finally:
            scorer.stop()

    return threads, written()


def cant_write(output: str, error: OSError) -> FerRayError:
    """Return the error for a full disk or an object store that refuses; problems of inputs are rows."""
    return FerRayError(f"{output}: rows can't be written: {error}. Repair that and continue with --resume.")
