"""Threads that process batches of items with a time limit for each item."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
B = TypeVar("B")

_STOP_SECONDS = 2.0  # for threads to end; one that waits for a file doesn't


class TimedBatches(Generic[T, R, B]):
    """Process batches of items in threads, with a time limit for each item.

    An item over the limit gets the result of ``on_timeout``, and its thread is abandoned: Python can't stop a thread
    that waits for a dead network drive. The thread ends when the drive answers, or with the process.

    The thread that processed the last item of a batch also finishes the batch: its core has the batch in its caches.

    Args:
        work: returns the result of an item; raises nothing.
        on_timeout: returns the result of an item over the limit.
        finish: returns a batch's result from the results of its items; ``map`` raises what it raises.
        threads: how many work at once; may be changed at any time.
        timeout_s: seconds for one item.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        on_timeout: Callable[[T], R],
        finish: Callable[[list[R]], B],
        threads: int,
        timeout_s: float,
    ):
        self.threads = threads
        self.open_batches = 1 + threads  # that are processed or finished at once; may be changed at any time
        self._work, self._on_timeout, self._finish, self._timeout_s = work, on_timeout, finish, timeout_s
        self._changed = threading.Condition()  # its lock guards the attributes below
        self._batches = list[_Batch[T, R, B]]()  # unfinished, the oldest first
        self._started = 0  # threads that are neither abandoned nor ended
        self._stopped = False
        self._running = dict[object, tuple[_Batch[T, R, B], int, float]]()  # by thread: its item, and since when

    def map(self, batches: Sequence[Sequence[T]]) -> list[B]:
        """Return the results of the batches, in order. Concurrent calls share the threads."""
        own = [_Batch[T, R, B](items, iter(range(len(items)))) for items in batches]
        with self._changed:
            self._batches += own
            self._start_threads()
            while not all(one.result.done() for one in own):
                oldest = min((began for _, _, began in self._running.values()), default=time.monotonic())
                self._changed.wait(max(0.01, oldest + self._timeout_s - time.monotonic()))
                self._abandon(time.monotonic() - self._timeout_s)
        return [one.result.result() for one in own]

    def stop(self) -> None:
        """End the threads after the items and batches that they work on; ``map`` is not called any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._started, _STOP_SECONDS)

    def _start_threads(self) -> None:
        self._changed.notify_all()
        for _ in range(0 if self._stopped else self.threads - self._started):
            self._started += 1
            threading.Thread(target=self._run, daemon=True).start()

    def _abandon(self, latest_start: float) -> None:
        """Time out the items that began at ``latest_start`` or before, and replace their threads."""
        for thread, (batch, number, began) in list(self._running.items()):
            if began <= latest_start:
                del self._running[thread]
                self._started -= 1
                batch.results[number] = self._on_timeout(batch.items[number])
                self._start_threads()

    def _run(self) -> None:
        thread = object()
        while task := self._next_task(thread):
            batch, number = task
            if number is None:
                try:
                    batch.result.set_result(self._finish([batch.results[number] for number in sorted(batch.results)]))
                except Exception as error:  # ``map`` raises it
                    batch.result.set_exception(error)
                with self._changed:
                    self._batches.remove(batch)
                    self._start_threads()
                continue
            result = self._work(batch.items[number])
            with self._changed:
                if thread not in self._running:  # abandoned and replaced
                    return
                del self._running[thread]
                batch.results[number] = result

    def _next_task(self, thread: object) -> "tuple[_Batch[T, R, B], int | None] | None":
        """Return a batch and an item's number, or a batch and None to finish it; None when the thread should end."""
        with self._changed:
            while self._batches and self._started <= self.threads and not self._stopped:
                for batch in self._batches[: self.open_batches]:
                    if not batch.is_taken and len(batch.results) == len(batch.items):
                        batch.is_taken = True
                        return batch, None
                    if (number := next(batch.numbers, None)) is not None:
                        self._running[thread] = batch, number, time.monotonic()
                        return batch, number
                self._changed.wait()
            self._started -= 1
            self._changed.notify_all()
            return None


@dataclass
class _Batch(Generic[T, R, B]):
    items: Sequence[T]
    numbers: Iterator[int]  # of items that no thread has taken
    results: dict[int, R] = field(default_factory=dict)
    result: Future[B] = field(default_factory=Future)
    is_taken: bool = False  # by the thread that finishes it
