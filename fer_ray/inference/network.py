"""A trained network on one device: from images to logits, batch by batch."""

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_ray.cluster.memory import is_out_of_memory, memory_errors
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import UsageError
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.device import LAYOUT, autocast, pick_device, release_memory, resolve_precision, to_device
from fer_ray.inference.tta import VIEWS, Views


def normalize(images_bhw: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Turn uint8 images, B × H × W, into float32, B × 1 × H × W, of zero mean and unit deviation over the dataset.

    Args:
        mean: of the training pixels, 0 to 1.
        std: of the training pixels, 0 to 1.
    """
    return images_bhw.unsqueeze(1).float().mul_(1 / (255 * std)).sub_(mean / std)


EVAL_BATCH = 128
"""Images a forward pass in validation and evaluation; on a CPU larger batches leave the caches and are slower."""
_SPEED_SECONDS = 1.0
LESS_MEMORY = (
    "There is no room for the network and one image. End what else takes memory there, name fewer checkpoints or a"
    " --tta of fewer views, or compute on the CPU (CUDA_VISIBLE_DEVICES=)."
)
"""What helps where memory ran out all the same."""


def forward_batches(
    model: nn.Module, images_bchw: Iterator[torch.Tensor], device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """Yield float32 logits, B × K, of each normalised batch; the model must be in evaluation mode."""
    for batch in images_bchw:
        with torch.inference_mode(), autocast(device, dtype):
            logits = model(batch.to(device).contiguous(memory_format=LAYOUT))
        yield logits.float()


class Network:
    """A checkpoint ready to compute.

    Args:
        checkpoint: a checkpoint folder, or a checkpoint in memory.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        batch_size: images a forward pass.

    Attributes:
        batch_size: likewise; halved where memory ran out.

    Raises:
        UsageError: no such precision, or memory doesn't hold the network.
        DataError: from ``load_checkpoint``.
    """

    def __init__(self, checkpoint: Checkpoint | Path | str, precision: str = "auto", batch_size: int = EVAL_BATCH):
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        self.info = self.checkpoint.info
        self.batch_size, self.device = batch_size, pick_device()
        self.dtype = resolve_precision(precision, self.device)
        with memory_errors(LESS_MEMORY):
            self._model = to_device(_with_kernels_in(self.dtype, self.checkpoint.model), self.device).eval()

    def logits(self, images: np.ndarray, views: Views = VIEWS["none"]) -> torch.Tensor:
        """Return the network's bare outputs for each view, float32, V × n × K, on the CPU, in its own order of labels.

        Args:
            images: uint8, n × size × size, grey, 0 black to 255 white.
            views: of each batch.

        Raises:
            UsageError: images of another shape or dtype, or memory doesn't suffice for one.
        """
        size = self.info.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size):
            raise UsageError(
                f"images of dtype {images.dtype} and shape {images.shape}: uint8, n × {size} × {size} expected, or a"
                " list of pictures of any size."
            )
        batches, done, asked = list[torch.Tensor](), 0, self.batch_size
        while done < len(images) or not batches:
            batch = images[done : done + self.batch_size]
            logits = self._within_memory(batch, views)
            if logits is None:  # other threads may have halved it meanwhile
                self.batch_size = min(self.batch_size, len(batch) // 2)
                release_memory()
                continue
            batches.append(logits)
            done += len(batch)
        if self.batch_size < asked:
            say(f"Memory ran out with {amount(asked, 'image')} a forward pass; {self.batch_size:,} from here on.")
        return torch.cat(batches, dim=1)

    def _within_memory(self, images: np.ndarray, views: Views) -> torch.Tensor | None:
        """Return the logits, or None where memory doesn't suffice for so many images at once."""
        try:
            with memory_errors(LESS_MEMORY) if len(images) <= 1 else nullcontext():
                return self._of_batch(images, views)
        except Exception as error:
            if len(images) <= 1 or not is_out_of_memory(error):
                raise
            return None

    def _of_batch(self, images: np.ndarray, views: Views) -> torch.Tensor:
        pixels = torch.tensor(images)
        if self.device.type == "cuda":  # from pinned memory a copy waits for nothing but its own stream
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        batch_bchw = normalize(pixels, self.info.mean, self.info.std)
        logits = forward_batches(self._model, views(batch_bchw), self.device, self.dtype)
        return torch.stack(list(logits)).cpu()


def _with_kernels_in(dtype: torch.dtype, model: nn.Module) -> nn.Module:
    """Return a network whose weights are in the dtype that autocast would bring them to in each pass anew."""
    if dtype == torch.float32:
        return model
    cast = copy.deepcopy(model)
    for module in cast.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)
    return cast


def prediction_speed(checkpoint: Path, precision: str) -> float:
    """Return the images a second that a checkpoint's network predicts here and now, without TTA, on seeded noise.

    The median over batches of ``EVAL_BATCH`` images, from the second on, for ``_SPEED_SECONDS`` or one batch.
    """
    network = Network(checkpoint, precision)
    shape = (EVAL_BATCH, network.info.size, network.info.size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    network.logits(images)
    seconds, began = list[float](), time.monotonic()
    while not seconds or time.monotonic() - began < _SPEED_SECONDS:
        start = time.monotonic()
        network.logits(images)
        seconds.append(time.monotonic() - start)
    return EVAL_BATCH / statistics.median(seconds)
