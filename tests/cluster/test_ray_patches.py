"""Each test first shows that Ray still needs a patch: where that part fails, remove the patch with its test."""

import contextlib
import importlib.util
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray._private.authentication import authentication_token_setup
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal import RayActorManager
from ray.data._internal.progress import get_progress_manager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.constants import ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV
from ray.train.torch import TorchConfig
from ray.train.v2._internal import constants as train_constants
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.failure_handling import FailureDecision, create_failure_policy
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api import data_parallel_trainer
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import ControllerError
from ray.tune.execution import class_cache, tune_controller
from ray.util import debug

from fer_ray.cluster import ray_patches


def unpatched(name: str) -> ModuleType:
    """Load a second copy of a module, as Ray ships it."""
    spec = importlib.util.find_spec(name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_of_jobs_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["fer-ray", "tune", "--storage", "postgresql://me:hunter2@host/studies"]
    utils = unpatched("ray._private.utils")
    monkeypatch.setattr(utils.psutil, "Process", lambda: SimpleNamespace(cmdline=lambda: typed))
    assert "hunter2" in utils.get_entrypoint_name()
    monkeypatch.setattr(sys, "orig_argv", typed)
    ray_patches.redact_entrypoint()
    assert ray._private.utils.get_entrypoint_name() == "fer-ray tune --storage 'postgresql://me:***@host/studies'"


def test_notices_are_quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def notices() -> set[str]:
        debug._logged.discard("ray_data_progress_manager_disabled")
        caplog.clear()
        authentication_token_setup._warn_token_auth_enabled()
        off: Any = SimpleNamespace(enable_operator_progress_bars=False, enable_progress_bars=False)
        with contextlib.suppress(AttributeError):  # of the stand-in, after the notice
            get_progress_manager(off, "dataset", {}, False)
        return {record.name for record in caplog.records}

    for name in ("ray", "ray.data"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    for name in ("ray._private.authentication", "ray.data._internal.progress"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
        logging.getLogger(name).setLevel(logging.WARNING)
    assert len(notices()) == 2
    ray_patches.quiet_notices()
    assert not notices()


def test_a_process_of_ray_that_died_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    node = SimpleNamespace(dead_processes=lambda: [("raylet", SimpleNamespace())])
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    assert ray_patches.dead_processes() == ["raylet"]


def test_trials_get_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def variables(module: ModuleType) -> set[str]:
        class Trainable:
            pass

        return set(module._ActorClassCache().get(Trainable)._default_options["runtime_env"]["env_vars"])

    for name in ray_patches.CREDENTIALS:
        monkeypatch.setenv(name, "secret")
    assert variables(unpatched("ray.tune.execution.class_cache")) >= ray_patches.CREDENTIALS
    ray_patches.keep_credentials_from_trials()
    assert not variables(class_cache) & ray_patches.CREDENTIALS


def test_a_kill_for_memory_is_the_death_of_one_actor() -> None:
    killed, deaths = OutOfMemoryError("1 worker(s) were killed."), list[Exception]()
    actor = SimpleNamespace(actor_id=1, _on_error=None)
    task: Any = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: deaths.append(error))

    def fail() -> None:
        manager = tune_controller.RayActorManager(FixedResourceManager({"CPU": 1}))  # type: ignore[attr-defined]
        manager._cleanup_actor = lambda tracked_actor: None
        manager._actor_task_failed(task, killed)

    with pytest.raises(RuntimeError):
        fail()
    with ray_patches.trials_killed_for_memory():
        fail()
    (death,) = deaths
    assert isinstance(death, RayActorError) and death.cause is killed  # type: ignore[attr-defined]
    assert tune_controller.RayActorManager is RayActorManager  # type: ignore[attr-defined]


def test_ray_train_passes_on_gpus_and_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV: "0", ray_patches.OWN_GPUS: "1", "RAY_ADDRESS": "10.0.0.1:6379"}
    assert TorchConfig().backend_cls.share_cuda_visible_devices  # whose default the first variable changes
    monkeypatch.setattr(train_constants, "ENV_VARS_TO_PROPAGATE", set(train_constants.ENV_VARS_TO_PROPAGATE))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    for name in ours:
        monkeypatch.setenv(name, "before")
    ray_patches.own_gpus_for_train_workers()
    ray_patches.name_cluster_to_train()
    assert not set(ours) & set(unpatched("ray.train.v2._internal.constants").get_env_vars_to_propagate())
    assert train_constants.get_env_vars_to_propagate().items() >= ours.items()


def test_a_failed_start_frees_its_cpus_and_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = list[bool]()

    def fails(group: Any, builder: Any) -> None:
        group._worker_group_state = SimpleNamespace(shutdown=lambda: freed.append(True))
        raise WorkerGroupStartupFailedError

    def starts(kind: Any) -> None:
        group = kind.__new__(kind)
        group._world_rank_to_ongoing_poll = {}
        with pytest.raises(WorkerGroupStartupFailedError):
            group._start()

    for kind in (as_shipped := unpatched(WorkerGroup.__module__).WorkerGroup, WorkerGroup):
        monkeypatch.setattr(kind, "_start_impl", fails)
    starts(as_shipped)
    config = FailureConfig(max_failures=1, controller_failure_limit=1)
    failed, late = ControllerError(WorkerGroupStartupFailedError()), ControllerError(WorkerGroupStartupTimeoutError(2))
    policy = create_failure_policy(config)
    assert not freed and policy.make_decision(failed) is FailureDecision.RETRY
    monkeypatch.setattr(WorkerGroup, "_start", WorkerGroup._start)
    monkeypatch.setattr(data_parallel_trainer, "create_failure_policy", None)
    ray_patches.failed_starts_are_failures()
    policy = cloudpickle.loads(cloudpickle.dumps(data_parallel_trainer.create_failure_policy(config)))
    starts(WorkerGroup)
    assert freed == [True]
    decisions = [policy.make_decision(error) for error in (failed, late, failed, late)]
    assert [one is FailureDecision.RETRY for one in decisions] == [True, True, False, False]
