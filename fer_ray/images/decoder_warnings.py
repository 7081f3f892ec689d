"""The warnings of libjpeg and libpng about damaged files: hidden from the terminal, and matched to their image.

Both write to the error stream and report nothing to their caller. So the stream is redirected to a file that is mapped
into memory: checking for a new warning takes a tenth of a microsecond. A system call would take a twentieth of the time
of decoding a small JPEG.
"""

import contextlib
import mmap
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_BYTES = 1 << 20
_CORRUPT = re.compile(rb"(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression)[^\n\0]*")


class _Printed:
    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the stream is redirected
        self._file.truncate(_BYTES)
        self.text = mmap.mmap(self._file.fileno(), _BYTES)  # zero after the printed part
        self.text[0] = 1  # a decoder that starts before the redirection sees a change
        self.end = 0  # of the printed part at the last look

    def redirect(self) -> None:
        os.lseek(self._file.fileno(), 1, os.SEEK_SET)
        os.dup2(self._file.fileno(), 2)
        self.end = 1

    def take(self) -> bytes:
        """Return the text printed since the last call."""
        start, end = self.end, self.text.find(b"\0", self.end)
        self.end = end if end >= 0 else _BYTES - 1
        return self.text[start : self.end]


_lock, _suspects = threading.Lock(), threading.Lock()
_depth = 0
_stderr = -1
_printed: _Printed | None = None


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Hide the warnings of decoders from the error stream, and let ``decode`` report them.

    All output of this process to its error stream is hidden, so enter this context for a batch of ``decode`` calls and
    no longer. It may be nested and entered by several threads.
    """
    global _depth, _stderr, _printed
    with _lock:
        _depth += 1
        if _depth == 1:
            _stderr = os.dup(2)
    if not _printed:
        _redirect()
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                os.dup2(_stderr, 2)
                os.close(_stderr)
                _printed = None


def _redirect() -> _Printed | None:
    """Redirect the error stream to a new file, unless every ``quiet_decoders`` has ended."""
    global _printed
    with _lock:
        if _depth:
            _printed = _Printed()
            _printed.redirect()
        return _printed


def decode_noticing(decode: Callable[[bytes, int], T], data: bytes, flags: int) -> tuple[T, str | None]:
    """Decode a JPEG, and return the result and, within ``quiet_decoders``, libjpeg's warning about damage.

    ``decode``, a decoder that prints at most one line, is called with the other arguments.
    """
    printed = _printed
    if not printed:
        return decode(data, flags), None
    start = printed.end
    result = decode(data, flags)
    suspect = printed.text[start] or printed is not _printed
    return result, _warning(decode, data, flags) if suspect else None


def _warning(decode: Callable[[bytes, int], object], data: bytes, flags: int) -> str | None:
    """Return the warning about this image, even if other threads print warnings at the same time.

    Each other thread prints at most once before it waits for ``_suspects``. So a warning that appears in as many
    decodings as there are threads is about this image.
    """
    found = None
    with _suspects:
        for _ in range(threading.active_count()):
            printed = _printed
            if printed:
                printed.take()
            if not printed or printed.end > _BYTES // 2:
                printed = _redirect()
            decode(data, flags)
            found = printed and _CORRUPT.search(printed.take())
            if not found:
                return None
    return found[0].decode() if found else None
