"""Equal things among more than fit in memory: digests of them are spread over files, and each is sorted by itself."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

KNOWN = -1
"""The row of things that were there before."""
_FILES = 64
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


class Repeats:
    """Collects things by row and finds those that came before, as a context manager.

    Takes 24 bytes a thing of disk, and a sixty-fourth of that of memory.
    """

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fer_ray-")))
            self._files = [stack.enter_context(file.open("w+b")) for file in self._paths()]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, thing: bytes, row: int) -> None:
        """Add a thing; rows count upwards from 0, or are ``KNOWN``."""
        digest = hashlib.blake2b(thing, digest_size=16).digest()  # equal by chance: once in 10^14 jobs of 10^12 things
        self._files[digest[0] % _FILES].write(digest + row.to_bytes(8, "little", signed=True))

    def find(self) -> tuple[np.ndarray, dict[int, int]]:
        """Return the rows, sorted, whose thing came before; and how often those did that were the first and not known.

        Things that came once are left out of the latter.
        """
        repeated, times = [np.empty(0, np.int64)], dict[int, int]()
        for records in self._sorted():
            is_first = np.ones(len(records), bool)
            is_first[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
            repeated.append(records["row"][~is_first])
            firsts = np.flatnonzero(is_first)
            counts = np.diff(np.append(firsts, len(records)))
            rows = records["row"][firsts]
            several = (counts > 1) & (rows != KNOWN)
            times.update(zip(rows[several].tolist(), counts[several].tolist(), strict=True))
        return np.sort(np.concatenate(repeated)), times

    def _paths(self) -> list[Path]:
        return [self._folder / str(number) for number in range(_FILES)]

    def _sorted(self) -> Iterator[np.ndarray]:
        for file, path in zip(self._files, self._paths(), strict=True):
            file.flush()
            records = np.fromfile(path, _RECORD)
            yield records[np.lexsort((records["row"], records["low"], records["high"]))]
