"""The errors by which memory runs out, as PyTorch, CUDA and the system word them, and a network that meets them."""

import errno
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributed import DistBackendError

ERRORS: dict[str, Callable[[], Exception]] = {
    "python": lambda: MemoryError("Unable to allocate 3.2 GiB"),
    "system": lambda: OSError(errno.ENOMEM, "Cannot allocate memory"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
    "allocator": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines"),
    "driver": lambda: torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cudnn": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cudnn 9": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "nccl": lambda: DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error\nncclUnhandledCudaError: Call to CUDA function"
        " failed.\nLast error:\nCuda failure 2 'out of memory'"
    ),
}
OTHERS: dict[str, Callable[[], Exception]] = {
    "assert": lambda: RuntimeError("CUDA error: device-side assert triggered"),
    "disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "cudnn": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
}


def room_for(
    images: int, error: Callable[[], Exception], real: Callable[..., Any]
) -> Callable[..., Iterator[torch.Tensor]]:
    """Return a stand-in for ``forward_batches`` that raises an error where a pass has more than so many images."""

    def forward_batches(model: Any, batches: Iterator[torch.Tensor], *rest: Any) -> Iterator[torch.Tensor]:
        for batch in batches:
            if len(batch) > images:
                raise error()
            yield from real(model, iter([batch]), *rest)

    return forward_batches
