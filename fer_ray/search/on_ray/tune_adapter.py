"""Ray Tune as searches run it: without output of its own, and with trials that fail where Ray would end the search."""

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray import tune as ray_tune

from fer_ray.cluster import connect
from fer_ray.cluster.ray_patches import keep_credentials_from_trials, trials_killed_for_memory
from fer_ray.console.messages import is_uploaded
from fer_ray.errors import FerRayError

_SWITCHES = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer one prints tables whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # of Tune's own state, which nothing reads
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@contextmanager
def adapted_tune() -> Iterator[None]:
    """Turn off Ray Tune's console output, its own result files and its handling of Ctrl-C, which would end a search
    as if it were finished; hand no credentials on to trials, whose nodes have their own; and have a process that Ray's
    memory monitor kills fail its trial alone.
    """
    previous = {name: os.environ.get(name) for name in _SWITCHES}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_SWITCHES)
    logger.setLevel(logging.CRITICAL)
    keep_credentials_from_trials()
    try:
        with trials_killed_for_memory():
            yield
    finally:
        logger.setLevel(level)
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def worker_error(trial: Any) -> object:
    """Return what was raised in the worker of a failed trial, or killed it; else the text of Tune's own trouble."""
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).is_file():
        error = cloudpickle.loads(Path(pickled).read_bytes())
        return getattr(error, "cause", error)
    return Path(text).read_text() if text else "failed without an error"


def forget_metrics(trial: Any) -> None:
    """Drop what Ray Tune keeps of each metric of a trial that has ended, for queries that nobody makes."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


def run_to_its_end(tuner: ray_tune.Tuner) -> None:
    """Run Ray Tune until its trials have ended, or its ``Stop`` says so.

    It leaves a job's uploaded folder: Tune fails where the current folder is gone, as that one is as soon as the job is
    stopped.

    Raises:
        FerRayError: Ray has died.
    """
    if is_uploaded(Path.cwd()):
        os.chdir(tempfile.gettempdir())
    try:
        tuner.fit()
    except _LostError as lost:
        raise FerRayError(f"{lost.__cause__} What was finished is kept: go on with --resume.") from None


class Stop(connect.NotPickled, ray_tune.Stopper):
    """Ends a search when its time is over or at Ctrl-C, between two steps of Tune rather than within one."""

    def __init__(self, seconds: float | None, interrupted: threading.Event):
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        try:
            connect.require_running()
        except FerRayError as error:
            raise _LostError from error
        return self._interrupted.is_set() or time.monotonic() > self._deadline


class _LostError(BaseException):
    """Ray has died. No ``Exception``: at one of those Ray Tune would wait for its actors, which are gone, to end."""
