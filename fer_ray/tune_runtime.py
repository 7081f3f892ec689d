"""Ray Tune as searches run it: without output of its own, and with trials that fail where Ray would end the search."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller

_SWITCHES = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer one prints tables whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # of Tune's own state, which nothing reads
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
_MANAGER = RayActorManager.__name__  # by which Tune's controller makes one


@contextmanager
def adapted_tune() -> Iterator[None]:
    """Turn off Ray Tune's console output, its own result files and its handling of Ctrl-C, which would end a search
    as if it were finished; and have a process that Ray's memory monitor kills fail its trial alone.
    """
    former = {name: os.environ.get(name) for name in _SWITCHES}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_SWITCHES)
    logger.setLevel(logging.CRITICAL)
    setattr(tune_controller, _MANAGER, _ActorManager)
    try:
        yield
    finally:
        setattr(tune_controller, _MANAGER, RayActorManager)
        logger.setLevel(level)
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _ActorManager(RayActorManager):
    """Takes the death of an actor for one whatever killed it.

    Ray's own stops the whole search, with all its trials, at any error but ``RayActorError``; the memory monitor's
    isn't one.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = _KilledForMemoryError(exception)
        super()._actor_task_failed(tracked_actor_task, exception)


class _KilledForMemoryError(RayActorError):
    """An actor's death by the memory monitor, whose own error is ``cause``."""

    def __init__(self, cause: OutOfMemoryError):
        super().__init__(error_msg=str(cause))
        self.cause = cause


def worker_error(trial: Any) -> object:
    """Return what was raised in the worker of a failed trial, or killed it; else the text of Tune's own trouble."""
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).is_file():
        error = cloudpickle.loads(Path(pickled).read_bytes())
        return getattr(error, "cause", error)
    return Path(text).read_text() if text else "failed without an error"
