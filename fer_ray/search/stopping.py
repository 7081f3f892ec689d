"""When a search stops."""

import math
import time
from threading import Event

from fer_ray.search.study import Study


class StopRule:
    """Ends a search after enough finished trials, at the end of its time budget, or at Ctrl-C.

    Args:
        study: study of the search.
        trials: number of finished trials in the study at the end.
        seconds: time budget from now on; None for no limit.
        interrupted: set at Ctrl-C.
    """

    def __init__(self, study: Study, trials: int, seconds: float | None, interrupted: Event):
        self._study, self._trials, self._interrupted = study, trials, interrupted
        self._deadline = time.monotonic() + (math.inf if seconds is None else seconds)

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interrupted.is_set()

    def trials_left(self) -> int:
        """Return how many more trials have to finish. At 0 no trial starts any more."""
        return max(0, self._trials - self._study.counted())

    def stops_now(self) -> bool:
        """Return whether the running trials stop too: the time is over, or Ctrl-C was pressed."""
        return self.is_interrupted or time.monotonic() > self._deadline
