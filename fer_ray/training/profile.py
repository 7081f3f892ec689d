"""Where the time of a training run goes, and what would make it faster."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = 1
PROFILE_FILE = "profile.json"
Part = Literal["data", "augmentation", "forward", "backward", "optimizer", "validation", "checkpoint", "other"]
PARTS: dict[Part, str] = {
    "data": "waiting for rows",
    "augmentation": "normalising and changing images",
    "forward": "predicting, and the loss",
    "backward": "gradients, and averaging them over workers",
    "optimizer": "changing the weights",
    "validation": "measuring on the validation split",
    "checkpoint": "writing the run's folder",
    "other": "all else in an epoch",
}
_EVERY, _FIRST = 50, 3
"""On a GPU steps 3, 53, 103, … of an epoch are measured. The first ones, which choose kernels, are none of them."""

T = TypeVar("T")


class RunProfile(BaseModel):
    """The contents of ``profile.json``: of all epochs so far, of the first worker where there are several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    device: str = Field(description="cpu or cuda.")
    precision: str = Field(description="Of convolutions and matrix products: float32 or bfloat16.")
    workers: int = Field(description="Processes that trained together.")
    fast_bfloat16: bool = Field(False, description="Whether that device has instructions for bfloat16.")
    mapped: bool = Field(description="Whether training images were memory-mapped from a file.")
    seconds: dict[Part, float] = Field(description="By part, as in fer_ray.training.profile.PARTS.")

    def shares(self) -> dict[Part, float]:
        """Return each part's share of the time, 0 to 1, all of them in the order of ``PARTS``."""
        total = sum(self.seconds.values())
        return {part: self.seconds.get(part, 0.0) / total if total else 0.0 for part in PARTS}


class Stopwatch:
    """Measures the parts of a run, at a cost that doesn't show.

    A GPU computes behind the process's back, so time is true only after waiting for it. That is done in one step of 50,
    whose shares are taken for those of all steps; on a CPU every step is measured.

    Args:
        device: that computes.
        previous: seconds by part, of the epochs before a run was resumed.
    """

    def __init__(self, device: torch.device, previous: dict[Part, float] | None = None):
        self._device = device
        self.seconds: dict[Part, float] = defaultdict(float, previous or {})
        self._steps: dict[Part, float] = defaultdict(float)
        self._measuring = False

    @contextmanager
    def span(self, part: Part) -> Iterator[None]:
        """Measure a block that ends with its results on the CPU, such as a validation."""
        began = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - began

    def part(self, part: Part) -> AbstractContextManager[None]:
        """Measure a block of a training step, where this step is one of those that are."""
        return self._part(part) if self._measuring else nullcontext()

    def steps(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of an epoch; what happens until the next one is asked for is a step."""
        self._steps.clear()
        iterator, measured, number = iter(batches), 0.0, 0
        began = time.perf_counter()
        while True:
            self._measuring = self._device.type == "cpu" or number % _EVERY == _FIRST
            step_began = self._now()
            with self.part("data"):
                batch = next(iterator, None)
            if batch is None:
                break
            yield batch
            measured += self._now() - step_began if self._measuring else 0.0
            number += 1
        self._measuring = False
        self._add(time.perf_counter() - began, measured)

    def _add(self, seconds: float, measured: float) -> None:
        """Share out an epoch's seconds as those that were measured."""
        scale = seconds / measured if measured else 0.0
        for part, spent in self._steps.items():
            self.seconds[part] += spent * scale
        self.seconds["other"] += max(0.0, seconds - sum(self._steps.values()) * scale)

    @contextmanager
    def _part(self, part: Part) -> Iterator[None]:
        began = self._now()
        yield
        self._steps[part] += self._now() - began

    def _now(self) -> float:
        if self._measuring and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def bottleneck(profile: RunProfile, can_grow: bool) -> str:
    """Say in a line what most of the time went to, and what would help.

    Args:
        profile: of a run.
        can_grow: whether its images could have been smaller in the first epochs, and weren't.
    """
    shares = profile.shares()
    network = shares["forward"] + shares["backward"]
    single: dict[str, float] = {part: share for part, share in shares.items() if part not in ("forward", "backward")}
    name, share = max((single | {"forward and backward": network}).items(), key=lambda item: item[1])
    return f"Most of the time went to {name} ({share:.0%}). {_remedy(name, profile, can_grow)}"


def _remedy(name: str, profile: RunProfile, can_grow: bool) -> str:
    if name == "forward and backward":
        ways = ["smaller images in the first epochs (schedule.first_size)"] if can_grow else []
        ways.append("a smaller network")
        if profile.precision == "float32" and profile.fast_bfloat16:
            ways.insert(0, "bfloat16 (training.precision)")
        ways.append("a GPU" if profile.device == "cpu" else "more GPUs (--workers)")
        return f"Faster with {', '.join(ways[:-1])} or {ways[-1]}."
    if name == "data" and profile.mapped:
        return "Faster with more memory, or with FER_RAY_CACHE on a faster disk."
    return {
        "data": "Faster with larger batches (training.batch_size).",
        "augmentation": "Faster with fewer kinds of augmentation (augment) or on a GPU.",
        "optimizer": "Faster with larger batches (training.batch_size), as that makes fewer steps.",
        "validation": "Faster with a smaller validation split.",
        "checkpoint": "Faster with --output on a faster disk.",
        "other": "Faster with larger batches (training.batch_size), as that makes fewer steps.",
    }[name]
