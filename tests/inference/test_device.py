"""What a device is prepared for."""

import subprocess
import sys

import pytest
from torch import nn

from fer_ray.inference.device import LAYOUT, pick_device, to_device

_STEPS = """
import ctypes, platform, resource, sys
import torch
from fer_ray.inference.device import to_device

if sys.argv[1] == "placed":
    to_device(torch.nn.Linear(1, 1), torch.device("cpu"))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def step():
    blocks = [libc.malloc(24 << 20) for _ in range(5)]
    for block in blocks:
        ctypes.memset(block, 1, 24 << 20)
    for block in blocks:
        libc.free(block)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(platform.libc_ver()[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(argument: str) -> int:
    """Return how many new pages the second of two steps asks the system for, in a process of its own."""
    command = [sys.executable, "-c", _STEPS, argument]
    libc, faults = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if libc != "glibc":
        pytest.skip(f"the C library is {libc}, which is left as it is")
    return int(faults)


def test_kernels_have_the_measured_layout() -> None:
    convolution = to_device(nn.Conv2d(3, 4, 3), pick_device())
    assert convolution.weight.is_contiguous(memory_format=LAYOUT)


@pytest.mark.slow
def test_a_cpu_keeps_what_a_step_freed() -> None:
    assert page_faults("placed") < 0.05 * page_faults("plain")
