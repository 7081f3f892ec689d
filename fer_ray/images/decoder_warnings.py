"""What libjpeg and libpng print about damaged files: hidden, and told of the image that it is about.

They write straight to the error stream and tell their caller nothing. So the stream leads to a file for a while, which
is mapped into memory: to look whether something was printed takes a tenth of a microsecond, where a call of the system
would take a twentieth of the time that a small JPEG does.
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
    """A file in place of the error stream.

    Attributes:
        text: what is in it, zero where nothing is printed yet.
        end: from where on nothing was printed when somebody last looked.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the stream leads here
        self._file.truncate(_BYTES)
        self.text = mmap.mmap(self._file.fileno(), _BYTES)
        self.text[0], self.end = 1, 0  # who starts before the stream leads here finds that something was printed

    def redirect(self) -> None:
        os.lseek(self._file.fileno(), 1, os.SEEK_SET)
        os.dup2(self._file.fileno(), 2)
        self.end = 1

    def take(self) -> bytes:
        """Return what was printed since the last call."""
        start, end = self.end, self.text.find(b"\0", self.end)
        self.end = end if end >= 0 else _BYTES - 1
        return self.text[start : self.end]


_lock, _suspects = threading.Lock(), threading.Lock()
_depth = 0
_stderr = -1
_printed: _Printed | None = None


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Hide what decoders print about damaged files, and let ``decode`` notice it.

    It hides everything that this process writes to its error stream, so hold it around a batch of ``decode`` calls and
    no longer. May be nested and held by several threads.
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
    """Let the stream lead to a fresh file; to none where nobody decodes quietly any more."""
    global _printed
    with _lock:
        if _depth:
            _printed = _Printed()
            _printed.redirect()
        return _printed


def decode_noticing(decode: Callable[[bytes, int], T], data: bytes, flags: int) -> tuple[T, str | None]:
    """Decode a JPEG, and return with the result what is printed about its damage, within ``quiet_decoders``.

    Args:
        decode: prints at most one line, as libjpeg does.
        data: its first argument.
        flags: its second.
    """
    printed = _printed
    if not printed:
        return decode(data, flags), None
    start = printed.end
    result = decode(data, flags)
    suspect = printed.text[start] or printed is not _printed
    return result, _warning(decode, data, flags) if suspect else None


def _warning(decode: Callable[[bytes, int], object], data: bytes, flags: int) -> str | None:
    """Return what is printed about this image, whatever other threads print meanwhile.

    Each of those prints once at most before it waits here itself. So what is printed as often as there are threads is
    about this one.
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
