"""Every change to Ray's own objects and private modules, one function a change.

Each docstring names the change, the reason, and the change in Ray after which the patch can go.
``tests/cluster/test_ray_patches.py`` fails for a patch once Ray no longer needs it.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from fer_ray.storage.provenance import command_line

OWN_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
"""With this variable Ray hides all GPUs from a process that requested none. Without it, the process sees them all."""
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}


def redact_entrypoint() -> None:
    """Replace the function that names this process in Ray's list of jobs by one without secrets.

    Ray shows the whole command line to everybody who sees the dashboard, with the password of a database URL. The patch
    can go once Ray redacts it, or takes the text as an option of ``ray.init``.
    """
    ray._private.utils.get_entrypoint_name = lambda: command_line(sys.orig_argv)


def quiet_notices() -> None:
    """Silence two notices of Ray's private modules: on token authentication, and on progress bars that are off.

    The README explains the first, and the stages draw their own progress bars. The patch can go once Ray has options
    for them, or says neither.
    """
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def dead_processes() -> list[str]:
    """Return the kinds of processes, such as ``raylet``, of the Ray started here that have died; read, not changed.

    Ray waits forever for some of them, and public interfaces don't tell. The function can go once ``ray.get`` and
    ``Tuner.fit`` raise an error when the raylet or the GCS server dies.
    """
    node = ray._private.worker._global_node
    return [kind for kind, _ in node.dead_processes()] if node else []


def keep_credentials_from_trials() -> None:
    """Remove AWS credentials from the variables that Ray Tune copies into the runtime environment of each trial.

    Every node's log shows a runtime environment. Nodes have their own credentials. The patch can go once Ray Tune
    copies no credentials.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE -= CREDENTIALS


@contextmanager
def trials_killed_for_memory() -> Iterator[None]:
    """Let the memory monitor's kill of a trial's process fail that trial alone, while the context is open.

    Ray Tune's actor manager ends the whole search at any error but ``RayActorError`` and ``RayTaskError``, and
    ``OutOfMemoryError`` is neither. The patch can go once the manager takes it for an actor's death.
    """
    from ray.air.execution._internal import RayActorManager
    from ray.tune.execution import tune_controller

    class ActorManager(RayActorManager):
        def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
            if isinstance(exception, OutOfMemoryError):
                exception = KilledForMemoryError(exception)
            super()._actor_task_failed(tracked_actor_task, exception)

    name = RayActorManager.__name__  # by which Tune's controller creates one
    setattr(tune_controller, name, ActorManager)
    try:
        yield
    finally:
        setattr(tune_controller, name, RayActorManager)


class KilledForMemoryError(RayActorError):
    """An actor's death by the memory monitor, whose own error is ``cause``."""

    def __init__(self, cause: OutOfMemoryError):
        super().__init__(error_msg=str(cause))
        self.cause = cause


def own_gpus_for_train_workers() -> None:
    """Let each worker of Ray Train see its own GPUs alone.

    By default every worker sees the GPUs of all workers on its node, and a worker that requested none uses the first
    one. Ray Train has variables against both, but passes them on to neither controller nor workers. The patch can go
    once it passes them on.
    """
    from ray.train.constants import ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV

    _pass_to_train({ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV: "0", OWN_GPUS: "1"})


def failed_starts_are_failures() -> None:
    """Free the CPUs of a worker group whose start failed, and let its retries count for ``max_failures``.

    A worker dies while it starts if it is killed, or with NCCL without GPUs. Ray Train then keeps the others, and tries
    again for ever, because their CPUs are never free. The patch can go once it frees them and has a limit for this.
    """
    from ray.train.v2.api import data_parallel_trainer

    data_parallel_trainer.create_failure_policy = _failure_policy  # type: ignore[attr-defined, assignment]


def _failure_policy(config: Any) -> Any:
    """Return the policy; also called in the process of Ray Train's controller, which starts the workers."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
    from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
    from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

    class FailurePolicy(DefaultFailurePolicy):
        def make_decision(self, training_failed_error: Any) -> FailureDecision:
            cause = getattr(training_failed_error, "controller_failure", None)
            if not isinstance(cause, WorkerGroupStartupFailedError):
                return super().make_decision(training_failed_error)
            self._worker_group_failures += 1
            is_last = self._worker_group_failures > config.max_failures
            return FailureDecision.RAISE if is_last else FailureDecision.RETRY

        def __reduce__(self) -> tuple[Any, ...]:
            return _failure_policy, (config,)

    real = WorkerGroup._start
    if real.__module__ != __name__:

        def start(group: Any) -> None:
            try:
                real(group)  # type: ignore[no-untyped-call]
            except Exception:
                if group.has_started():
                    group._worker_group_state.shutdown()
                    group._clear_state()
                raise

        setattr(WorkerGroup, "_start", start)  # noqa: B010 - for mypy
    return FailurePolicy(config)


def name_cluster_to_train() -> None:
    """Tell the actors of Ray Train by ``RAY_ADDRESS`` which cluster they are in.

    When a trial is stopped, an actor of Ray Train checks whether its controller lives, and removes the placement group
    of its workers. It finds the cluster by looking for Ray's processes on the machine. With two clusters there it gives
    up, and the next trial waits forever for those CPUs. The patch can go once that actor asks the cluster it runs in.
    """
    _pass_to_train({"RAY_ADDRESS": ray.get_runtime_context().gcs_address})


def _pass_to_train(variables: dict[str, str]) -> None:
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    os.environ |= variables
    ENV_VARS_TO_PROPAGATE.update(variables)
