"""List the architectures: parameters, FLOPs, and images/s measured on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_ray.cluster.memory import memory_errors
from fer_ray.config.options import ModelsOptions
from fer_ray.config.schema import ModelConfig
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import say
from fer_ray.emotions import NUM_CLASSES
from fer_ray.inference.device import LAYOUT, autocast, pick_device, resolve_precision, to_device
from fer_ray.inference.network import seconds_of
from fer_ray.models import architectures, build, find
from fer_ray.reporting.html import Table

SIZE = 48  # FER-2013's
_BATCH = {"cpu": 32, "cuda": 256}  # small on a CPU, where a step of a deep network takes seconds
_LESS_MEMORY = "List other architectures, use --no-speed, or compute on the CPU (CUDA_VISIBLE_DEVICES=)."


@dataclass(frozen=True)
class ArchitectureFigures:
    """The size and speed of an architecture; without a measurement the speeds are None."""

    name: str
    summary: str
    parameters: int
    flops: int  # of a forward pass of one 48 × 48 image; a multiplication and an addition are two
    infer_per_s: float | None  # images/s of a forward pass on this machine
    train_per_s: float | None  # images/s of a training step, without reading and augmenting images


@stage(ModelsOptions)
def models(options: ModelsOptions) -> list[ArchitectureFigures]:
    """Count parameters and FLOPs of architectures on 48 × 48 images, and measure their speed.

    ``UsageError`` if an architecture is unknown, or memory runs out.
    """
    device = pick_device()
    dtype = resolve_precision(options.precision, device)
    figures = []
    for architecture in map(find, options.names) if options.names else architectures():
        config = ModelConfig(name=architecture.name)
        with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes suffice to count
            model = build(config, SIZE).eval()
            model(torch.zeros(1, 1, SIZE, SIZE))
        parameters = sum(weights.numel() for weights in model.parameters())
        infer = train = None
        if options.speed:
            say(f"measuring {architecture.name}")
            with memory_errors(f"'{architecture.name}' can't be measured here. {_LESS_MEMORY}"):
                infer, train = _speeds(to_device(build(config, SIZE), device), device, dtype)
        flops = int(counter.get_total_flops())
        figures.append(ArchitectureFigures(architecture.name, architecture.summary, parameters, flops, infer, train))
    return figures


def describe(figures: Sequence[ArchitectureFigures], dtype: torch.dtype) -> str:
    """Return the figures as a plain-text table; ``dtype`` is that of the measured speeds."""
    columns = ("name", "parameters", "MFLOPs", "predict/s", "train/s", "summary")
    rows = [
        (
            *(one.name, f"{one.parameters:,}", f"{one.flops / 1e6:,.1f}"),
            *("–" if speed is None else f"{speed:,.0f}" for speed in (one.infer_per_s, one.train_per_s)),
            one.summary,
        )
        for one in figures
    ]
    note = f"MFLOPs of a {SIZE} × {SIZE} image. An addition and a multiplication are two FLOPs."
    if figures[0].infer_per_s is not None:
        device = pick_device().type
        threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
        precision = str(dtype).removeprefix("torch.")
        note += f"\nImages/s on this machine: {device}{threads}, {precision}, batches of {_BATCH[device]}."
    return f"{Table('', columns, rows).as_text()}\n\n{note}"


def _speeds(model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
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
    infer_per_s = size / seconds_of(infer)
    model.train()
    return infer_per_s, size / seconds_of(train)


def command(options: ModelsOptions) -> None:
    """Print the table."""
    print(describe(models.run(options), resolve_precision(options.precision, pick_device())))
    print("Each name is also that of a configuration with a search space: train --config NAME, tune --space NAME.")
