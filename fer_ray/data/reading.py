"""Bytes of entries, wherever they lie, and work on many of them that no single one can hold up."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

import pyarrow as pa

from fer_ray.data.archives import ContainerReader, Entry
from fer_ray.data.disk import MAX_BYTES, FileError, FileProblem, read_file
from fer_ray.object_stores import ObjectFile

T = TypeVar("T")
R = TypeVar("R")

_own = threading.local()


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry.

    Raises:
        FileError: they can't be had, with the kind of problem.
    """
    if entry.problem:
        status, _, message = entry.problem.partition(": ")
        raise FileError(cast(FileProblem, status), message)
    if entry.container:
        if not hasattr(_own, "containers"):
            _own.containers = ContainerReader()
        data: bytes = _own.containers.read(entry)
        return data
    return _read_object(entry.name.decode()) if entry.name.startswith((b"s3://", b"gs://")) else read_file(entry.name)


def _read_object(url: str) -> bytes:
    try:
        with ObjectFile(url) as file:
            if file.size() > MAX_BYTES:
                raise FileError("too_large", f"{file.size():,} bytes, more than the {MAX_BYTES:,} allowed")
            return file.readall()
    except FileNotFoundError as error:
        raise FileError("missing", "no such object") from error
    except (OSError, pa.ArrowException) as error:
        text = str(error).lower()
        raise FileError("timeout" if "timeout" in text or "timed out" in text else "unreadable", str(error)) from error


class Crew(Generic[T, R]):
    """Threads that work on items; one that takes too long is given up, and its thread left behind.

    Python can't stop a thread that waits for a dead network drive; it ends when the drive answers, or with the process.

    Args:
        work: on an item; raises nothing.
        late: the result of an item that took too long.
        threads: how many items are in work at once.
        timeout_s: for one item.
    """

    def __init__(self, work: Callable[[T], R], late: Callable[[T], R], threads: int, timeout_s: float):
        self._work, self._late, self._threads, self._timeout_s = work, late, threads, timeout_s

    def map(self, items: Sequence[T]) -> list[R]:
        """Return the results of the items, in order."""
        if not items:
            return []
        shift = _Shift(items, self._work)
        for _ in range(min(self._threads, len(items))):
            shift.add_thread()
        with shift.changed:
            while len(shift.results) < len(items):
                shift.changed.wait(max(0.01, shift.oldest() + self._timeout_s - time.monotonic()))
                for number in shift.since(time.monotonic() - self._timeout_s):
                    shift.results[number] = self._late(items[number])
                    del shift.began[number]
                    shift.add_thread()
        return [shift.results[number] for number in range(len(items))]


class _Shift(Generic[T, R]):
    """One call's items. ``changed`` guards all but the work itself."""

    def __init__(self, items: Sequence[T], work: Callable[[T], R]):
        self._items, self._work = items, work
        self._left: Iterator[int] = iter(range(len(items)))
        self.began, self.results = dict[int, float](), dict[int, R]()
        self.changed = threading.Condition()

    def add_thread(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def oldest(self) -> float:
        return min(self.began.values(), default=time.monotonic())

    def since(self, moment: float) -> list[int]:
        return [number for number, began in self.began.items() if began <= moment]

    def _run(self) -> None:
        with self.changed:
            number = self._next()
        while number is not None:
            result = self._work(self._items[number])
            with self.changed:
                if number in self.results:  # given up, and another thread has taken this one's place
                    return
                self.results[number] = result
                del self.began[number]
                if len(self.results) == len(self._items):
                    self.changed.notify_all()
                number = self._next()

    def _next(self) -> int | None:
        number = next(self._left, None)
        if number is not None:
            self.began[number] = time.monotonic()
        return number
