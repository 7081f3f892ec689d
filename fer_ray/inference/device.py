"""Where and in which precision to compute."""

import ctypes
import functools
import gc
import os
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn

from fer_ray.console.progress import say
from fer_ray.errors import UsageError

LAYOUT = torch.channels_last
"""Of images and kernels. In float32 on a CPU with AVX2 it trains 1.1 to 1.4 times and predicts 1.2 to 2.2 times as fast
as the contiguous layout, and bfloat16 kernels want it on CPUs and GPUs alike."""

_RAY_JOB, _NOT_SET_BY_RAY = "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h
_MOST_TRIMMED, _MOST_MAPPED = 2**31 - 1, 2**25  # the largest that mallopt takes


def pick_device() -> torch.device:
    """Return the current CUDA device where there is one, else the CPU.

    The process of a Ray job that asked for no GPU sees none: Ray gives them to others.
    """
    _hide_gpus_of_others()
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@functools.cache
def _hide_gpus_of_others() -> None:
    # Ray names the GPUs that a job asked for in CUDA_VISIBLE_DEVICES; without any it leaves all of them in sight.
    unasked = "CUDA_VISIBLE_DEVICES" not in os.environ or os.environ.get(_NOT_SET_BY_RAY) == "1"
    if _RAY_JOB in os.environ and unasked:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if Path("/proc/driver/nvidia/gpus").is_dir():
            say("This job asked for no GPU (--entrypoint-num-gpus 1), so its own process computes on the CPU.")


def keep_to_part(gpu: float) -> None:
    """Let this process take no more of a GPU's memory than its part, where that is below 1 and above 0."""
    if 0 < gpu < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpu)


def release_memory() -> None:
    """Give back what PyTorch keeps of a GPU's memory and nothing uses any more; other processes may want it.

    Where an error is on its way, what its frames hold is let go too.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        traceback.clear_frames(sys.exc_info()[2])
        gc.collect()
        torch.cuda.empty_cache()


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
