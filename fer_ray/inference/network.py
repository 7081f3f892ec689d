"""A trained network on one device: from images to logits, in batches."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from fer_ray.cluster.memory import is_out_of_memory, memory_errors
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import UsageError
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.device import LAYOUT, autocast, pick_device, release_memory, resolve_precision, to_device
from fer_ray.inference.tta import VIEWS, Views


def normalize(images_bhw: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Turn uint8 images, B × H × W, into normalised float32 images, B × 1 × H × W.

    Args:
        images_bhw: 0 black to 255 white.
        mean: mean of the training pixels, 0 to 1.
        std: standard deviation of the training pixels.
    """
    return images_bhw.unsqueeze(1).float().mul_(1 / (255 * std)).sub_(mean / std)


EVAL_BATCH = 128
"""Batch size of validation and evaluation. On a CPU larger batches don't fit the caches and are slower."""
_SPEED_SECONDS = 0.5
LESS_MEMORY = (
    "Memory doesn't hold the network and one image. End other programs that use this memory, name fewer checkpoints or"
    " a --tta with fewer views, or compute on the CPU (CUDA_VISIBLE_DEVICES=)."
)
"""The remedy when memory runs out even with a batch of one image."""


def forward_batches(
    model: nn.Module, images_bchw: Iterator[torch.Tensor], device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """Yield float32 logits, B × K, of each normalised batch. The model must be in evaluation mode."""
    for batch in images_bchw:
        with torch.inference_mode(), autocast(device, dtype):
            logits = model(batch.to(device).contiguous(memory_format=LAYOUT))
        yield logits.float()


class Network:
    """A checkpoint on a device.

    Args:
        checkpoint: a checkpoint folder, or a checkpoint in memory.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        batch_size: images per forward pass; the attribute is halved when memory runs out.

    Raises:
        UsageError: the precision is unknown, or memory doesn't hold the network.
        DataError: as for ``load_checkpoint``.
    """

    def __init__(self, checkpoint: Checkpoint | Path | str, precision: str = "auto", batch_size: int = EVAL_BATCH):
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        self.info = self.checkpoint.info
        self.batch_size, self.device = batch_size, pick_device()
        self.dtype = resolve_precision(precision, self.device)
        with memory_errors(LESS_MEMORY):
            self._model = to_device(_with_kernels_in(self.dtype, self.checkpoint.model), self.device).eval()

    def logits(self, images: np.ndarray, views: Views = VIEWS["none"]) -> torch.Tensor:
        """Return the logits of each view, float32, V × n × K, on the CPU, in the network's own order of labels.

        Args:
            images: uint8, n × size × size, grey, 0 black to 255 white.
            views: the views of each batch.

        Raises:
            UsageError: the images have another shape or dtype, or memory doesn't hold one image.
        """
        size = self.info.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size):
            raise UsageError(
                f"images of dtype {images.dtype} and shape {images.shape}: uint8, n × {size} × {size} expected, or a"
                " list of pictures of any size."
            )
        batches, done, requested = list[torch.Tensor](), 0, self.batch_size
        while done < len(images) or not batches:
            batch = images[done : done + self.batch_size]
            try:
                with memory_errors(LESS_MEMORY) if len(batch) <= 1 else nullcontext():
                    batches.append(self._of_batch(batch, views))
                done += len(batch)
            except Exception as error:
                if len(batch) <= 1 or not is_out_of_memory(error):
                    raise
                # Another thread may have halved batch_size already.
                self.batch_size = min(self.batch_size, len(batch) // 2)
                release_memory()
        if self.batch_size < requested:
            say(f"Memory ran out with a batch of {amount(requested, 'image')}; batches of {self.batch_size:,} follow.")
        return torch.cat(batches, dim=1)

    def _of_batch(self, images: np.ndarray, views: Views) -> torch.Tensor:
        pixels = torch.tensor(images)
        if self.device.type == "cuda":  # a copy from pinned memory is asynchronous
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        batch_bchw = normalize(pixels, self.info.mean, self.info.std)
        logits = forward_batches(self._model, views(batch_bchw), self.device, self.dtype)
        return torch.stack(list(logits)).cpu()


def _with_kernels_in(dtype: torch.dtype, model: nn.Module) -> nn.Module:
    """Return a network with weights in ``dtype``, to which autocast would convert them in each forward pass."""
    if dtype == torch.float32:
        return model
    cast = copy.deepcopy(model)
    for module in cast.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)
    return cast


def prediction_speed(checkpoint: Path, precision: str) -> float:
    """Return the median speed of a checkpoint's network on this machine in images/s, without TTA, on random images."""
    network = Network(checkpoint, precision)
    shape = (EVAL_BATCH, network.info.size, network.info.size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return EVAL_BATCH / seconds_of(lambda: network.logits(images))


def seconds_of(step: Callable[[], object]) -> float:
    """Return the median seconds of a step. The timer warms up, and waits for a GPU."""
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    median: float = timer.blocked_autorange(min_run_time=_SPEED_SECONDS).median
    return median
