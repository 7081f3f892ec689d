"""Device, precision and memory of a computation."""

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

from fer_ray.cluster.resources import JOB_VARIABLE
from fer_ray.console.progress import say
from fer_ray.errors import UsageError

LAYOUT = torch.channels_last
"""Memory format of images and kernels. In float32 on a CPU with AVX2 it trains 1.1 to 1.4 times and predicts 1.2 to 2.2
times as fast as the contiguous format. bfloat16 kernels need it on CPUs and GPUs."""

_NOT_SET_BY_RAY = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h
_MOST_TRIMMED, _MOST_MAPPED = 2**31 - 1, 2**25  # the largest values that mallopt accepts


def pick_device() -> torch.device:
    """Return the current CUDA device if there is one, else the CPU; ``UsageError`` if PyTorch has no kernels for it.

    The driver of a Ray job that requested no GPU uses none: Ray assigns the GPUs to other processes.
    """
    _hide_gpus_of_others()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    _set_up_gpu()
    return torch.device("cuda", torch.cuda.current_device())


@functools.cache
def _set_up_gpu() -> None:
    """Let cuDNN choose its fastest convolutions, and compute float32 as float32 instead of TF32's 10 bits."""
    try:
        torch.zeros(1, device="cuda").add_(1)
    except RuntimeError as error:
        if "no kernel image" not in str(error):
            raise
        raise UsageError(
            f"{torch.cuda.get_device_name()}: this PyTorch ({torch.__version__}) was built for"
            f" {', '.join(torch.cuda.get_arch_list())}. Hide this GPU (CUDA_VISIBLE_DEVICES=) or take another PyTorch."
        ) from error
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@functools.cache
def _hide_gpus_of_others() -> None:
    # Ray sets CUDA_VISIBLE_DEVICES to the GPUs that a job requested, and leaves it alone if the job requested none.
    unasked = "CUDA_VISIBLE_DEVICES" not in os.environ or os.environ.get(_NOT_SET_BY_RAY) == "1"
    if JOB_VARIABLE in os.environ and unasked:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if Path("/proc/driver/nvidia/gpus").is_dir():
            say("This job requested no GPU (--entrypoint-num-gpus 1), so its driver computes on the CPU.")


def limit_gpu_memory(gpu: float) -> None:
    """Limit this process to a fraction of a GPU's memory, if the fraction is between 0 and 1."""
    if 0 < gpu < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpu)


def release_memory() -> None:
    """Release the GPU memory that PyTorch caches, for other processes.

    During exception handling, memory that the exception's frames hold is released too.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        traceback.clear_frames(sys.exc_info()[2])
        gc.collect()
        torch.cuda.empty_cache()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions: recent GPUs, and CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("amx_bf16", "avx512_bf16"))


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions and matrix products for ``auto``, ``float32`` or ``bfloat16``."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"precision = '{precision}': choose auto, float32, bfloat16, or for predictions int8.")
    if precision == "float32" or (precision == "auto" and not has_fast_bfloat16(device)):
        return torch.float32
    return torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which a forward pass computes in ``dtype``. Weights stay float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device with kernels in ``LAYOUT``. On a CPU, also make malloc keep freed memory."""
    if device.type == "cpu":
        _keep_freed_memory()
    return model.to(device).to(memory_format=LAYOUT)


def _keep_freed_memory() -> None:
    """Make glibc keep the memory that a step frees for the next step. Other C libraries are unaffected.

    By default glibc returns the end of the heap to the system, and the next step waits for new zeroed pages: a third of
    the time of training a small network.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _MOST_TRIMMED)
        mallopt(_M_MMAP_THRESHOLD, _MOST_MAPPED)
