"""Progress of long work: a bar on a terminal, lines in a log, or JSON; and messages to the user, without secrets."""

import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from fer_ray.console.json_log import tell, writes_json
from fer_ray.console.messages import redacted
from fer_ray.console.text import duration, per_time

_LOG_INTERVAL_S, _DETAILED_INTERVAL_S = 15.0, 60.0
_CONSOLE = Console(stderr=True)


def say(message: str) -> None:
    """Print one line for the user on the error stream; the output stream is for results."""
    if not tell("message", message):
        _CONSOLE.print(redacted(message), markup=False, highlight=False, soft_wrap=True)


class Details(Protocol):
    """What is running now, shown below a progress bar on a terminal and as lines in a log."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult: ...

    def lines(self) -> list[str]: ...  # for a log

    def facts(self) -> list[dict[str, Any]]: ...  # for ``--log-json``


class ProgressBar:
    """Show how many units are finished; a context manager.

    Args:
        description: what is being done, in a few words.
        total: all units; None where the number isn't known.
        unit: plural name of a unit.
        start: units that an earlier run finished; the rate excludes them.
        details: shown below the bar. With details a log gets lines once a minute, otherwise every 15 s.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        unit: str = "images",
        start: int = 0,
        details: Details | None = None,
    ):
        self.description, self.total, self.unit = description, total, unit
        self.done = self.start = start
        self.note = ""
        self._details = details
        self._interval = _DETAILED_INTERVAL_S if details else _LOG_INTERVAL_S
        self._began = self._last_line = time.monotonic()
        self._last_done: int | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if _CONSOLE.is_terminal and not writes_json():
            self._bar = _Bar(self._details)
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, count="", note="")
            self._bar.start()
        return self

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """Count units as finished. ``note`` replaces the text at the end of the line."""
        self.done += units
        self.note = self.note if note is None else note
        if self._bar:
            count = f"{self._count()}  {per_time(self.rate())}"
            self._bar.update(self._task, completed=self.done, count=count, note=self.note)
        else:
            self.touch()

    def touch(self) -> None:
        """Write the details to a log if its last lines are old enough; call this when the details change."""
        if self._bar is None and time.monotonic() - self._last_line >= self._interval:
            self._line()

    def rate(self) -> float:
        """Return finished units per second since this bar began."""
        return (self.done - self.start) / max(time.monotonic() - self._began, 1e-9)

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None and self._last_done != self.done:
            self._line(ended=True)

    def _count(self) -> str:
        return f"{self.done:,}" + (f"/{self.total:,}" if self.total else "") + f" {self.unit}"

    def _line(self, ended: bool = False) -> None:
        self._last_line, self._last_done = time.monotonic(), self.done
        rate = self.rate() if self.done > self.start else None
        left = (self.total - self.done) / rate if self.total and rate and self.done < self.total and not ended else None
        details = None if ended else self._details
        line = f"{self.description}: {self._count()}"
        line += "" if rate is None else f", {per_time(rate, self.unit)}"
        line += "" if left is None else f", {duration(left)} left"
        text = "\n  ".join([f"{line}  {self.note}".rstrip(), *(details.lines() if details else [])])
        numbers = {"done": self.done, "total": self.total, "unit": self.unit, "per_s": rate, "seconds_left": left}
        facts = details.facts() if details else []
        if not tell("progress", text, description=self.description, **numbers, note=self.note or None, details=facts):
            print(redacted(text), file=sys.stderr, flush=True)


class _Bar(Progress):
    def __init__(self, details: Details | None):
        self._details, count, note = details, "{task.fields[count]}", "{task.fields[note]}"
        super().__init__("{task.description}", BarColumn(), count, TimeRemainingColumn(), note, console=_CONSOLE)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._details:
            yield self._details
