"""List the architectures: parameters, FLOPs, and images/s measured on this machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_ray.config.schema import ModelConfig
from fer_ray.console.progress import say
from fer_ray.emotions import NUM_CLASSES
from fer_ray.inference.device import LAYOUT, autocast, pick_device, resolve_precision, to_device
from fer_ray.models import architectures, build, find

SIZE = 48  # FER-2013's
_BATCH = {"cpu": 32, "cuda": 256}  # small on a CPU, where a step of a deep network takes seconds
_SECONDS = 0.5  # of a measurement


@dataclass(frozen=True)
class ArchitectureFigures:
    """The size and speed of an architecture.

    Attributes:
        name: name of the architecture.
        summary: one line.
        parameters: number of parameters.
        flops: FLOPs of a forward pass of one 48 × 48 image; a multiplication and an addition are two.
        infer_per_s: images/s of a forward pass on this machine; None if not measured.
        train_per_s: images/s of a training step on this machine; None if not measured.
        search_space: the architecture's search space file; None if there is none.
    """

    name: str
    summary: str
    parameters: int
    flops: int
    infer_per_s: float | None
    train_per_s: float | None
    search_space: Path | None


def models(
    names: Sequence[str] | None = None, *, speed: bool = True, precision: str = "auto"
) -> list[ArchitectureFigures]:
    """Count parameters and FLOPs of architectures on 48 × 48 images, and measure their speed.

    Args:
        names: names of architectures, in the order of the result; None for all.
        speed: whether to measure images/s, which takes a second or two steps per architecture.
        precision: precision of the measurement: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        UsageError: an architecture or the precision is unknown.
    """
    device = pick_device()
    dtype = resolve_precision(precision, device)
    figures = []
    for architecture in map(find, names) if names else architectures():
        model = build(ModelConfig(name=architecture.name), SIZE)
        parameters, flops = sum(weights.numel() for weights in model.parameters()), _flops(model)
        infer = train = None
        if speed:
            say(f"measuring {architecture.name}")
            infer, train = _speeds(to_device(model, device), device, dtype)
        space = _search_space(architecture.name)
        figures.append(
            ArchitectureFigures(architecture.name, architecture.summary, parameters, flops, infer, train, space)
        )
    return figures


def describe(figures: Sequence[ArchitectureFigures], precision: str) -> str:
    """Return the figures as a plain-text table. ``precision`` is that of the measured speeds."""
    width = max(len(one.name) for one in figures) + 2
    spaces = [str(one.search_space or "–") for one in figures]
    space_width = max(map(len, [*spaces, "search space"])) + 2
    lines = [
        f"{'':{width}}{'':>10}{'MFLOPs':>10}{'infer':>10}{'train':>10}",
        f"{'name':{width}}{'parameters':>10}{'an image':>10}{'images/s':>10}{'images/s':>10}"
        f"  {'search space':{space_width}}summary",
    ]
    for one, space in zip(figures, spaces, strict=True):
        speeds = "".join(
            f"{'–' if rate is None else f'{rate:,.0f}':>10}" for rate in (one.infer_per_s, one.train_per_s)
        )
        lines.append(
            f"{one.name:{width}}{_millions(one.parameters):>10}{one.flops / 1e6:>10,.1f}{speeds}"
            f"  {space:{space_width}}{one.summary}"
        )
    lines += ["", f"{SIZE} × {SIZE} images. An addition and a multiplication are two FLOPs."]
    if figures[0].infer_per_s is not None:
        device = pick_device().type
        threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
        lines.append(
            f"Speeds were measured on this machine: {device}{threads}, {precision}, batches of {_BATCH[device]}."
        )
    return "\n".join(lines)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, 1, SIZE, SIZE))
    return int(counter.get_total_flops())


def _speeds(model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return images/s of forward passes and of training steps, without reading and augmenting images."""
    size = _BATCH[device.type]
    batch = torch.randn(size, 1, SIZE, SIZE, device=device).contiguous(memory_format=LAYOUT)
    labels = torch.randint(NUM_CLASSES, (size,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def infer() -> None:
        with torch.inference_mode(), autocast(device, dtype):
            model(batch)

    def train() -> None:
        with autocast(device, dtype):
            logits = model(batch)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    model.eval()
    infer_per_s = size * _steps_per_s(infer, device)
    model.train()
    return infer_per_s, size * _steps_per_s(train, device)


def _steps_per_s(step: Callable[[], None], device: torch.device) -> float:
    began = time.monotonic()
    step()
    _wait_for(device)
    first = time.monotonic() - began
    if first > _SECONDS:  # warming up is a small part of such a long step
        return 1 / first
    steps, began = 0, time.monotonic()
    while time.monotonic() - began < _SECONDS:
        step()
        _wait_for(device)
        steps += 1
    return steps / (time.monotonic() - began)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _search_space(name: str) -> Path | None:
    """Return an architecture's file in the working folder, or in the checkout of the package."""
    folders = (Path("search_spaces"), Path(__file__).parents[1] / "search_spaces")
    return next((file for folder in folders if (file := folder / f"{name}.yaml").is_file()), None)


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Architectures. Default: all of them.")] = None,
    speed: Annotated[bool, typer.Option(help="Measure images/s, which takes a few seconds per architecture.")] = True,
    precision: Annotated[str, typer.Option(help="Precision of the measurement: auto, float32 or bfloat16.")] = "auto",
) -> None:
    """List the architectures: parameters, FLOPs, and images/s measured on this machine."""
    dtype = str(resolve_precision(precision, pick_device())).removeprefix("torch.")
    print(describe(models(names, speed=speed, precision=precision), dtype))
