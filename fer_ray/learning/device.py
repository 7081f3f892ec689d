"""Where and in which precision to compute."""

import ctypes
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from fer_ray.errors import UsageError

LAYOUT = torch.channels_last
"""Of images and kernels. In float32 on a CPU with AVX2 it trains 1.1 to 1.4 times and predicts 1.2 to 2.2 times as fast
as the contiguous layout, and bfloat16 kernels want it on CPUs and GPUs alike."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h
_MOST_TRIMMED, _MOST_MAPPED = 2**31 - 1, 2**25  # the largest that mallopt takes


def pick_device() -> torch.device:
    """Return the current CUDA device where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU's own memory; None for the CPU, which has none of its own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether the device has bfloat16 instructions: recent GPUs, and CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("amx_bf16", "avx512_bf16"))


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Turn ``auto``, ``float32`` or ``bfloat16`` into the dtype of convolutions and matrix products."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"precision = '{precision}': choose auto, float32 or bfloat16.")
    if precision == "float32" or (precision == "auto" and not has_fast_bfloat16(device)):
        return torch.float32
    return torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return the context in which a forward pass computes in ``dtype``; weights stay float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, its kernels in ``LAYOUT``, and let a CPU compute without asking for memory anew."""
    if device.type == "cpu":
        _keep_freed_memory()
    return model.to(device).to(memory_format=LAYOUT)


def _keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one; other C libraries are left as they are.

    By default it gives the end of the heap back to the system, whose zeroed pages the next step then waits for: a third
    of the time of a small network's training.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _MOST_TRIMMED)
        mallopt(_M_MMAP_THRESHOLD, _MOST_MAPPED)
