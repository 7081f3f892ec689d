"""The error stream as JSON, one object a line, for log collectors: the option ``--log-json``.

=============  =========================================================================================================
field          of an event
=============  =========================================================================================================
``time``       when it was written: UTC, ISO 8601, milliseconds
``kind``       ``message``, ``progress``, ``error``, ``warning`` (Python's), or ``output`` (written by a library)
``text``       what the error stream shows without ``--log-json``
=============  =========================================================================================================

A ``progress`` has ``description``, ``done``, ``total``, ``unit``, ``per_s``, ``seconds_left``, ``note`` and ``details``
(of each running trial: ``trial``, ``space``, ``epoch``, ``epochs``, ``last``, ``best``, ``seconds_left``); an ``error``
has ``error``, the kind of it, ``exit_code``, ``problems``, and ``traceback`` where it is an unexpected one; a
``warning`` has ``category`` and ``where``. What isn't known is null.
"""

import atexit
import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime
from typing import Any, TextIO

from fer_ray.console.messages import redacted

_BEGIN = '{"time": "'
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR_STREAM, _PATIENCE_S = 2, 5


def log_as_json() -> None:
    """Write the error stream as JSON from now on, whatever in this process writes to it."""
    is_own = sys.stderr is sys.__stderr__
    if sys.stderr is None or writes_json():  # None where the shell closed it
        return
    if is_own:
        _filter_what_is_not_python()
    sys.stderr = _JsonStream(sys.stderr)
    warnings.showwarning = _show_warning


def writes_json() -> bool:
    """Return whether the error stream is JSON."""
    return isinstance(sys.stderr, _JsonStream)


def tell(kind: str, text: str, **fields: Any) -> bool:
    """Write an event without secrets if the error stream is JSON; return whether it is."""
    stream = sys.stderr
    if isinstance(stream, _JsonStream):
        stream.put(kind, text, fields)
        return True
    return False


def _filter_what_is_not_python() -> None:
    """Have another process make events of what Ray's and other libraries' native code writes past ``sys.stderr``.

    A process, as a thread would end before the last words of a crash are read. It ends when all who write have ended.
    """
    before = os.dup(_ERROR_STREAM)
    # In a session of its own, so that Ctrl-C doesn't end it before those who write.
    reader = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), _ERROR_STREAM)
    reader.stdin.close()

    def end() -> None:
        """Wait until all is written, unless a process that was started here and goes on keeps the stream open."""
        sys.stderr.flush()
        os.dup2(before, _ERROR_STREAM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(_PATIENCE_S)

    atexit.register(end)


class _JsonStream(io.TextIOBase):
    """Makes an event of each piece of text that is written to it, up to the end of a line.

    Libraries write a record, of several lines too, at once; so it stays one event.
    """

    def __init__(self, stream: TextIO):
        self._stream, self._begun, self._lock = stream, "", threading.RLock()
        atexit.register(self._end)

    def put(self, kind: str, text: str, fields: dict[str, Any]) -> None:
        line = _line(kind, text, fields)
        with self._lock:
            self._stream.write(line)
            self._stream.flush()

    def write(self, text: str) -> int:
        with self._lock:
            self._begun += text
            if self._begun.endswith("\n"):
                self._end()
        return len(text)

    def _end(self) -> None:
        begun, self._begun = _COLOURS.sub("", self._begun).strip("\r\n"), ""
        if begun:
            self.put("output", begun, {})

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def _line(kind: str, text: str, fields: dict[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # In ASCII, so that neither control characters nor the stream's encoding can tear a line.
    return json.dumps(_plain({"time": now, "kind": kind, "text": text, **fields})) + "\n"


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


def _filter() -> None:
    """Copy events from the input to the error stream, and make one of each other line."""
    for raw in sys.stdin.buffer:
        before, begin, event = raw.decode("utf-8", "backslashreplace").partition(_BEGIN)
        text = _COLOURS.sub("", before).strip("\r\n")
        sys.stderr.write((_line("output", text, {}) if text else "") + begin + event)
        sys.stderr.flush()


if __name__ == "__main__":
    _filter()
