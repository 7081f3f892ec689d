"""The error stream as JSON, one object a line, for log collectors: the option ``--log-json``.

An event has ``time`` (UTC, ISO 8601), ``kind`` (``message``, ``progress``, ``error``, ``warning`` of Python, ``output``
of a library) and ``text``, which is what the error stream shows without ``--log-json``. A ``progress`` has
``description``, ``done``, ``total``, ``unit``, ``per_s``, ``seconds_left``, ``note`` and ``details`` (of each running
trial: ``trial``, ``space``, ``epoch``, ``epochs``, ``last``, ``best``, ``seconds_left``). An ``error`` has ``error``
(its class), ``exit_code``, ``problems``, and ``traceback`` if it is unexpected. A ``warning`` has ``category`` and
``where``. Unknown values are null. Lines that native code prints, such as a crash in C++, stay text.
"""

import atexit
import io
import json
import math
import re
import sys
import threading
import warnings
from datetime import UTC, datetime
from typing import Any, TextIO

from fer_ray.console.messages import redacted

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def log_as_json() -> None:
    """Write what Python code prints on the error stream as JSON from now on."""
    if sys.stderr is not None and not writes_json():  # None if the shell closed it
        sys.stderr = _JsonStream(sys.stderr)
        warnings.showwarning = _show_warning


def writes_json() -> bool:
    """Return whether the error stream is JSON."""
    return isinstance(sys.stderr, _JsonStream)


def tell(kind: str, text: str, **fields: Any) -> bool:
    """Write an event without secrets if the error stream is JSON; return whether it is."""
    stream = sys.stderr
    if not isinstance(stream, _JsonStream):
        return False
    stream.put(kind, text, fields)
    return True


class _JsonStream(io.TextIOBase):
    """Makes an event of the text written to it up to the end of a line.

    Libraries write a record, even one of several lines, in one call, so that it becomes one event.
    """

    def __init__(self, stream: TextIO):
        self._stream, self._pending, self._lock = stream, "", threading.RLock()
        atexit.register(self._end)

    def put(self, kind: str, text: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # In ASCII, so that neither control characters nor the stream's encoding break a line.
        line = json.dumps(_plain({"time": now, "kind": kind, "text": text, **fields}))
        with self._lock:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def write(self, text: str) -> int:
        with self._lock:
            self._pending += text
            if self._pending.endswith("\n"):
                self._end()
        return len(text)

    def _end(self) -> None:
        text, self._pending = _COLOURS.sub("", self._pending).strip("\r\n"), ""
        if text:
            self.put("output", text, {})

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: without secrets, NaN and infinities as null."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any, **named: Any
) -> None:
    tell("warning", str(message), category=category.__name__, where=f"{filename}:{lineno}")
