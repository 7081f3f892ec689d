"""Threads that work through batches, which no single item can hold up."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
B = TypeVar("B")

_BATCHES = 2  # in work at once: one is finished while the items of the next are worked on


class TimedBatches(Generic[T, R, B]):
    """Threads that work through batches; an item that takes too long is given up, and its thread left behind.

    Python can't stop a thread that waits for a dead network drive; it ends when the drive answers, or with the process.

    The thread that worked on the last item of a batch finishes the batch too: where there is one thread for a core, no
    other has to be woken, whose core's caches would hold nothing of it.

    Args:
        work: on an item; raises nothing.
        late: the result of an item that took too long.
        finish: makes a batch's result of its items'; what it raises, ``map`` raises.
        threads: that work at once; may be changed at any time.
        timeout_s: for one item.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        late: Callable[[T], R],
        finish: Callable[[list[R]], B],
        threads: int,
        timeout_s: float,
    ):
        self.threads = threads
        self._work, self._late, self._finish, self._timeout_s = work, late, finish, timeout_s
        self._lock = threading.Lock()  # guards what follows
        self._more = threading.Condition(self._lock)  # there may be work for a thread that had none
        self._batches = list[_Batch[T, R, B]]()  # unfinished, the oldest first
        self._staff = 0
        self._running = dict[object, tuple[_Batch[T, R, B], int, float]]()  # by thread: its item, and since when

    def map(self, batches: Sequence[Sequence[T]]) -> list[B]:
        """Return the results of the batches, in order; several calls at once share the threads."""
        all_done = threading.Condition(self._lock)
        own = [_Batch[T, R, B](items, all_done) for items in batches]
        with self._lock:
            self._batches += own
            self._call_up()
            while not all(one.result.done() for one in own):
                oldest = min((began for _, _, began in self._running.values()), default=time.monotonic())
                all_done.wait(max(0.01, oldest + self._timeout_s - time.monotonic()))
                self._give_up(time.monotonic() - self._timeout_s)
        return [one.result.result() for one in own]

    def _call_up(self) -> None:
        self._more.notify_all()
        for _ in range(self.threads - self._staff):
            self._staff += 1
            threading.Thread(target=self._run, daemon=True).start()

    def _give_up(self, moment: float) -> None:
        """Let items that began before the moment be late, and count their threads no longer."""
        for thread, (batch, number, began) in list(self._running.items()):
            if began <= moment:
                del self._running[thread]
                self._staff -= 1
                batch.results[number] = self._late(batch.items[number])
                self._call_up()

    def _run(self) -> None:
        thread = object()
        while task := self._next(thread):
            batch, number = task
            if number is None:
                batch.set_result(self._finish)
                with self._lock:
                    self._batches.remove(batch)
                    self._call_up()
                    if all(one.all_done is not batch.all_done for one in self._batches):
                        batch.all_done.notify()
                continue
            result = self._work(batch.items[number])
            with self._lock:
                if thread not in self._running:  # given up, and another thread has taken this one's place
                    return
                del self._running[thread]
                batch.results[number] = result

    def _next(self, thread: object) -> "tuple[_Batch[T, R, B], int | None] | None":
        """Return a batch and the number of an item, or None to finish the batch; None where there is no more to do."""
        with self._lock:
            while self._batches and self._staff <= self.threads:
                for batch in self._batches[:_BATCHES]:
                    if batch.is_ready():
                        return batch, None
                    if (number := next(batch.left, None)) is not None:
                        self._running[thread] = batch, number, time.monotonic()
                        return batch, number
                self._more.wait()
            self._staff -= 1
            return None


class _Batch(Generic[T, R, B]):
    def __init__(self, items: Sequence[T], all_done: threading.Condition):
        self.items, self.all_done = items, all_done
        self.left: Iterator[int] = iter(range(len(items)))
        self.results = dict[int, R]()
        self.result = Future[B]()
        self._taken = False

    def is_ready(self) -> bool:
        """Say, once, whether all items have results."""
        ready = not self._taken and len(self.results) == len(self.items)
        self._taken = self._taken or ready
        return ready

    def set_result(self, finish: Callable[[list[R]], B]) -> None:
        try:
            self.result.set_result(finish([self.results[number] for number in range(len(self.items))]))
        except Exception as error:  # raised again where the batch is waited for
            self.result.set_exception(error)
