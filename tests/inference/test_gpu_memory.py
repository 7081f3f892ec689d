"""What a device is prepared for, memory that runs out on it, and what a process gives back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from out_of_memory import ERRORS, OTHERS, room_for

from fer_ray.cluster.memory import is_out_of_memory
from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.inference import device, network
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.predictor import Predictor
from fer_ray.train import train
from fer_ray.training import loop
from fer_ray.weights import SHIPPED_CHECKPOINT

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load_checkpoint(SHIPPED_CHECKPOINT)


@pytest.mark.parametrize("kind", [*ERRORS, *(f"not {kind}" for kind in OTHERS)])
def test_memory_that_ran_out_is_told_from_its_error(kind: str) -> None:
    is_other = kind.startswith("not ")
    error = OTHERS[kind.removeprefix("not ")]() if is_other else ERRORS[kind]()
    wrapped = ValueError("in a worker")
    wrapped.__cause__ = error
    assert is_out_of_memory(error) == is_out_of_memory(wrapped) == (not is_other)


@pytest.mark.parametrize(("room", "left"), [(16, 16), (7, 4), (1, 1)])
def test_prediction_goes_on_with_fewer_images_a_pass(
    room: int, left: int, shipped: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor(shipped, precision="float32", batch_size=16)
    expected = predictor.predict(IMAGES)
    monkeypatch.setattr(network, "forward_batches", room_for(room, ERRORS["driver"], network.forward_batches))
    for _ in range(2):  # the second time it knows
        np.testing.assert_allclose(predictor.predict(IMAGES).probabilities, expected.probabilities, atol=1e-5)
    assert predictor.batch_size == left
    assert capsys.readouterr().err.count(f"with a batch of 16 images; batches of {left} follow.") == (room < 16)


def test_what_a_smaller_batch_does_not_mend_is_raised(shipped: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "forward_batches", room_for(0, OTHERS["assert"], network.forward_batches))
    with pytest.raises(RuntimeError, match="device-side assert"):
        Predictor(shipped, precision="float32").predict(IMAGES)


def test_training_names_remedy(tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ERRORS["cudnn"]()

    monkeypatch.setattr(loop._Run, "train_epoch", fail)
    small = load_config(None, ["model.name=lenet", "training.batch_size=96", "training.accumulate=2"])
    with pytest.raises(UsageError, match=r"out of memory: .*training.batch_size, now 96, .*training.accumulate, now 2"):
        train(tiny_dataset.path, small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "sees"),
    [
        ({}, "0,1"),  # no job: a laptop's own GPUs
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}, ""),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "CUDA_VISIBLE_DEVICES": None}, ""),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "CUDA_VISIBLE_DEVICES": "1"}, "1"),  # --entrypoint-num-gpus 1
    ],
)
def test_gpus_that_a_job_sees(environment: dict[str, str | None], sees: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name)
    device._hide_gpus_of_others.cache_clear()
    device.pick_device()
    assert device.os.environ["CUDA_VISIBLE_DEVICES"] == sees
    device._hide_gpus_of_others.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_predicts_as_a_cpu_in_a_part_of_its_memory(shipped: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = Predictor(shipped, precision="float32", batch_size=1 << 17)
    device.limit_gpu_memory(0.01)
    predictions = on_gpu.predict(np.repeat(IMAGES, 7000, axis=0))
    assert on_gpu.device.type == "cuda" and on_gpu.batch_size < 1 << 17
    monkeypatch.setattr(network, "pick_device", lambda: torch.device("cpu"))
    expected = Predictor(shipped, precision="float32").predict(IMAGES)
    np.testing.assert_allclose(predictions.probabilities[::7000], expected.probabilities, atol=1e-3)


@pytest.mark.parametrize("runs", [True, False])
def test_a_gpu_without_kernels_is_refused_by_name(runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*size: int, device: str) -> Any:
        if not runs:
            raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")
        return torch.ones(1)

    told = {"is_available": True, "current_device": 0, "get_device_name": "NVIDIA Model 7", "get_arch_list": ["sm_90"]}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch, "zeros", zeros)
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(device, "_set_up_gpu", device._set_up_gpu.__wrapped__)
    if runs:
        assert device.pick_device().type == "cuda"
        assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
    else:
        with pytest.raises(UsageError, match=r"NVIDIA Model 7.* sm_90.*(CUDA_VISIBLE_DEVICES=)"):
            device.pick_device()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
