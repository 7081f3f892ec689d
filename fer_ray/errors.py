"""Errors that a user can fix, and the exit code of each.

Exit codes: 0 done, 1 unexpected error, 2 wrong call or configuration, 3 bad data. A message gives the value, the rule
that the value breaks and the remedy, without secrets. Several problems are reported together.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fer_ray.console.messages import explained, redacted


class FerRayError(Exception):
    """One or several problems that the user can fix; printed without a traceback."""

    exit_code = 1

    def __init__(self, problems: str | Iterable[str]):
        messages = [problems] if isinstance(problems, str) else problems
        self.problems = [redacted(explained(one)) for one in messages]
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        """Keep the list of problems when the error is pickled."""
        return type(self), (self.problems,)


class UsageError(FerRayError):
    """A wrong call or configuration (exit code 2)."""

    exit_code = 2


class DataError(FerRayError):
    """A missing or invalid dataset, image folder or checkpoint (exit code 3)."""

    exit_code = 3


class Problems:
    """Collects the problems of several checks, to raise them together."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._kind: type[FerRayError] = DataError

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the problems of an error that the block raises."""
        try:
            yield
        except FerRayError as error:
            self._lines += error.problems
            self._kind = UsageError if isinstance(error, UsageError) else self._kind

    def add(self, *lines: str) -> None:
        """Keep problems of the call."""
        if lines:
            with self.collect():
                raise UsageError(lines)

    def stop(self) -> None:
        """Raise what was kept: a ``UsageError`` if some problem is one of the call, a ``DataError`` if none is."""
        if self._lines:
            raise self._kind(self._lines)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def first_ones(problems: list[str], rest: str) -> list[str]:
    """Return the first three of many like problems; ``rest`` counts the others, where it has ``{}``."""
    more = len(problems) - 3
    return problems[:3] + [rest.format(f"{more:,}")] * (more > 0)
