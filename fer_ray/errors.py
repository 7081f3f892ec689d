"""The errors that a user can mend, each kind with the exit code of the command line.

Exit codes: 0 done, 1 an unexpected fault, 2 a wrong call or configuration, 3 bad data. A message
names the value, the rule that it breaks and the remedy, without secrets; several problems are reported together.
"""

import difflib
from collections.abc import Iterable

from fer_ray.console.messages import explained, redacted


class FerRayError(Exception):
    """A problem the user can mend. Shown without a traceback.

    Args:
        problems: one message, or several that were found together.
    """

    exit_code = 1

    def __init__(self, problems: str | Iterable[str]):
        given = [problems] if isinstance(problems, str) else problems
        self.problems = [redacted(explained(one)) for one in given]
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        """Keep the list of problems when the error crosses a process boundary."""
        return type(self), (self.problems,)


class UsageError(FerRayError):
    """A wrong call or configuration (exit code 2)."""

    exit_code = 2


class DataError(FerRayError):
    """A dataset, image folder or checkpoint that is not what it should be (exit code 3)."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or the empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
