"""What a device is prepared for."""

import pytest
import torch

from fer_ray.errors import UsageError
from fer_ray.inference import device
from fer_ray.inference.device import pick_device


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 9), "sm_75 sm_80", True),
        ((6, 1), "sm_75 sm_80", False),
        ((8, 0), "sm_86", False),
        ((12, 1), "sm_80 compute_90", True),
        ((9, 0), "sm_90a", True),
        ((9, 1), "sm_90a", False),
    ],
)
def test_a_gpu_without_kernels_is_refused_by_name(
    capability: tuple[int, int], built: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "is_available": True,
        "current_device": 0,
        "get_device_name": "NVIDIA Model 7",
        "get_device_capability": capability,
        "get_arch_list": built.split(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    device._set_up_gpu.cache_clear()
    if runs:
        assert pick_device().type == "cuda"
        assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
    else:
        with pytest.raises(UsageError, match=r"NVIDIA Model 7.*(CUDA_VISIBLE_DEVICES=)"):
            pick_device()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    device._set_up_gpu.cache_clear()
