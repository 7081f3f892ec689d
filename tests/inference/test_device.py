"""What a device is prepared for."""

from typing import Any

import pytest
import torch

from fer_ray.errors import UsageError
from fer_ray.inference import device


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
