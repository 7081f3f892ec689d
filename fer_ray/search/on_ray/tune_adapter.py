"""Adapt Ray Tune to searches: no output of its own, and a trial that fails doesn't end the search."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray import tune as ray_tune

from fer_ray.cluster.ray_patches import keep_credentials_from_trials, trials_killed_for_memory
from fer_ray.console.messages import is_uploaded
from fer_ray.errors import FerRayError

_SWITCHES = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer one prints tables whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@contextmanager
def adapted_tune(copies_files: bool) -> Iterator[None]:
    """Turn off Ray Tune's console output, its result files and its handling of Ctrl-C, which would end a search as if
    it were finished. Pass no credentials to trials: nodes have their own. Let a process that Ray's memory monitor kills
    fail its own trial only.

    Args:
        copies_files: whether Ray Tune copies its files, among them those of TensorBoard, while the search runs.
    """
    switches = _SWITCHES | {"TUNE_GLOBAL_CHECKPOINT_S": "10" if copies_files else "1000000000"}
    previous = {name: os.environ.get(name) for name in switches}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(switches)
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
    """Return the exception that ended the process of a failed trial, or the text of Tune's own error."""
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).is_file():
        error = cloudpickle.loads(Path(pickled).read_bytes())
        return getattr(error, "cause", error)
    return Path(text).read_text() if text else "failed without an error"


def run_to_its_end(tuner: ray_tune.Tuner) -> None:
    """Run Ray Tune until its trials have ended or its stopper ends the search.

    Leaves the uploaded folder of a job, which disappears when the job is stopped: Tune needs its current folder.

    Raises:
        FerRayError: Ray has died.
    """
    if is_uploaded(Path.cwd()):
        os.chdir(tempfile.gettempdir())
    try:
        tuner.fit()
    except LostError as lost:
        raise FerRayError(f"{lost.__cause__} Finished epochs are kept: resume with --resume.") from None


class LostError(BaseException):
    """Ray has died. Not an ``Exception``, at which Ray Tune would wait for its actors to end, which are gone."""
