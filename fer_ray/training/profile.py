"""Measure where the time of a training run goes, and say what would make it faster."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar

import torch
from pydantic import Field

from fer_ray.storage.json_files import StoredModel

FORMAT_VERSION = 1
PROFILE_FILE = "profile.json"
Phase = Literal["data", "augmentation", "forward", "backward", "optimizer", "validation", "checkpoint", "other"]
PHASES: dict[Phase, str] = {
    "data": "waiting for rows",
    "augmentation": "normalising and augmenting images",
    "forward": "forward pass and loss",
    "backward": "gradients, and averaging them over the workers",
    "optimizer": "optimizer step",
    "validation": "measuring on the validation split",
    "checkpoint": "writing the run's folder",
    "other": "everything else in an epoch",
}
_EVERY, _FIRST = 50, 3
"""On a GPU, steps 3, 53, 103, … of an epoch are measured. The first steps choose kernels, so they are left out."""

T = TypeVar("T")


class RunProfile(StoredModel):
    """The contents of ``profile.json``: the time of all epochs so far, measured on the first worker."""

    format_version: int = FORMAT_VERSION
    device: str = Field(description="cpu or cuda.")
    precision: str = Field(description="Of convolutions and matrix products: float32 or bfloat16.")
    workers: int = Field(description="Processes that trained together.")
    fast_bfloat16: bool = Field(False, description="Whether the device has instructions for bfloat16.")
    mapped: bool = Field(description="Whether training images were memory-mapped from a file.")
    seconds: dict[Phase, float] = Field(description="By phase, as in fer_ray.training.profile.PHASES.")

    def shares(self) -> dict[Phase, float]:
        """Return the fraction of the time that each phase took, 0 to 1, in the order of ``PHASES``."""
        total = sum(self.seconds.values())
        return {phase: self.seconds.get(phase, 0.0) / total if total else 0.0 for phase in PHASES}


class Stopwatch:
    """Measures the phases of a run, and continues the seconds by phase of its epochs before a resume.

    A GPU works asynchronously, so a time is right only after a synchronisation. On a GPU one step of 50 is measured and
    stands for all steps; on a CPU every step is measured.
    """

    def __init__(self, device: torch.device, previous: dict[Phase, float] | None = None):
        self._device = device
        self.seconds: dict[Phase, float] = defaultdict(float, previous or {})
        self._steps: dict[Phase, float] = defaultdict(float)
        self._measuring = False

    def copy(self) -> "Stopwatch":
        """Return one with the seconds so far."""
        return Stopwatch(self._device, dict(self.seconds))

    def span(self, phase: Phase) -> AbstractContextManager[None]:
        """Measure a block whose results are on the CPU at its end, such as a validation."""
        return self._measure(phase, self.seconds)

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """Measure a block of a training step, if this step is one of the measured ones."""
        return self._measure(phase, self._steps) if self._measuring else nullcontext()

    @contextmanager
    def _measure(self, phase: Phase, seconds: dict[Phase, float]) -> Iterator[None]:
        began = self._now()
        yield
        seconds[phase] += self._now() - began

    def steps(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of an epoch. A step lasts until the next batch is requested."""
        self._steps.clear()
        iterator, measured, number = iter(batches), 0.0, 0
        began = time.perf_counter()
        while True:
            self._measuring = self._device.type == "cpu" or number % _EVERY == _FIRST
            step_began = self._now()
            with self.phase("data"):
                batch = next(iterator, None)
            if batch is None:
                break
            yield batch
            measured += self._now() - step_began if self._measuring else 0.0
            number += 1
        self._measuring = False
        # The phases of the measured steps stand for those of the whole epoch.
        seconds = time.perf_counter() - began
        scale = seconds / measured if measured else 0.0
        for phase, spent in self._steps.items():
            self.seconds[phase] += spent * scale
        self.seconds["other"] += max(0.0, seconds - sum(self._steps.values()) * scale)

    def _now(self) -> float:
        if self._measuring and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def bottleneck(profile: RunProfile, can_grow: bool) -> str:
    """Return one line: the phase that took most of the time, and what would make it faster.

    ``can_grow`` says that the first epochs could have used smaller images but didn't.
    """
    shares: dict[str, float] = dict(profile.shares().items())
    shares["forward and backward"] = shares.pop("forward") + shares.pop("backward")
    name = max(shares, key=lambda phase: shares[phase])
    larger_batches = "with larger batches (training.batch_size), which make fewer steps"
    network = ["bfloat16 (training.precision)"] * (profile.precision == "float32" and profile.fast_bfloat16)
    network += ["smaller images in the first epochs (schedule.first_size)"] * can_grow
    network += ["a smaller network", "a GPU" if profile.device == "cpu" else "more GPUs (--workers)"]
    remedy = {
        "forward and backward": f"with {', '.join(network[:-1])} or {network[-1]}",
        "data": "with more memory, or with FER_RAY_CACHE on a faster disk" if profile.mapped else larger_batches,
        "augmentation": "with fewer kinds of augmentation (augment) or on a GPU",
        "optimizer": larger_batches,
        "validation": "with a smaller validation split",
        "checkpoint": "with --output on a faster disk",
        "other": larger_batches,
    }[name]
    return f"Most of the time went to {name} ({shares[name]:.0%}). Faster {remedy}."
