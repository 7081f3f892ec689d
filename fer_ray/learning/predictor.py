"""Predict with a network: logits of a whole array, and probabilities with test-time augmentation (TTA)."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_ray.errors import UsageError
from fer_ray.learning.augment import normalize
from fer_ray.learning.checkpoint import Checkpoint, load_checkpoint
from fer_ray.learning.device import LAYOUT, autocast, pick_device, place, resolve_precision
from fer_ray.learning.tta import VIEWS

EVAL_BATCH = 128
"""Images a forward pass in validation and evaluation; on a CPU larger batches leave the caches and are slower."""
_SPEED_SECONDS = 1.0


def forward_batches(
    model: nn.Module, images_bchw: Iterator[torch.Tensor], device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """Yield float32 logits, B × K, of each normalised batch; the model must be in evaluation mode."""
    for batch in images_bchw:
        with torch.inference_mode(), autocast(device, dtype):
            logits = model(batch.to(device).contiguous(memory_format=LAYOUT))
        yield logits.float()


@dataclass(frozen=True)
class Predictions:
    """What a network says of n images.

    Attributes:
        probabilities: float32, n × K, rows sum to 1, in the order of the checkpoint's label names.
        tta_std: float32, n; standard deviation over the views of the predicted label's probability, 0 with one view.
    """

    probabilities: np.ndarray
    tta_std: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """int64, n; index of the most probable name."""
        labels: np.ndarray = self.probabilities.argmax(axis=1)
        return labels


def average_views(probs_vbk: torch.Tensor) -> Predictions:
    """Turn the probabilities of V views of B images, V × B × K, into predictions."""
    probs_bk = probs_vbk.mean(dim=0)
    chosen_vb = probs_vbk.gather(2, probs_bk.argmax(dim=1).expand(len(probs_vbk), -1).unsqueeze(2)).squeeze(2)
    spread_b = (chosen_vb - chosen_vb.mean(dim=0)).square().mean(dim=0).sqrt()  # std() warns of no images
    return Predictions(probs_bk.numpy(), spread_b.numpy())


class Predictor:
    """A checkpoint ready to predict on one device.

    Args:
        checkpoint: a checkpoint folder, or a checkpoint in memory.
        tta: which views of each image are averaged; a name in ``fer_ray.learning.tta.VIEWS``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        batch_size: images a forward pass.

    Raises:
        UsageError: no such TTA or precision.
        DataError: from ``load_checkpoint``.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | Path | str,
        tta: str = "none",
        precision: str = "auto",
        batch_size: int = EVAL_BATCH,
    ):
        if tta not in VIEWS:
            raise UsageError(f"tta = '{tta}': choose one of {', '.join(VIEWS)}.")
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        self.info = self.checkpoint.info
        self.tta, self.batch_size = tta, batch_size
        self._views: Callable[[torch.Tensor], Iterator[torch.Tensor]] = VIEWS[tta]
        self._device = pick_device()
        self._dtype = resolve_precision(precision, self._device)
        self._model = place(self.checkpoint.model, self._device).eval()

    def predict(self, images: np.ndarray) -> Predictions:
        """Predict grey images, uint8, n × size × size, 0 black to 255 white.

        Raises:
            UsageError: another shape or dtype.
        """
        return average_views((self.logits(images) / self.info.temperature).softmax(dim=2))

    def logits(self, images: np.ndarray) -> torch.Tensor:
        """Return the network's bare outputs for each view, float32, V × n × K, on the CPU; images as in ``predict``."""
        size = self.info.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size):
            raise UsageError(
                f"images of dtype {images.dtype} and shape {images.shape}: uint8, n × {size} × {size} expected."
            )
        starts = range(0, max(len(images), 1), self.batch_size)
        return torch.cat([self._logits_of_batch(images[start : start + self.batch_size]) for start in starts], dim=1)

    def _logits_of_batch(self, images: np.ndarray) -> torch.Tensor:
        batch_bchw = normalize(torch.tensor(images, device=self._device), self.info.mean, self.info.std)
        views = forward_batches(self._model, self._views(batch_bchw), self._device, self._dtype)
        return torch.stack(list(views)).cpu()


def prediction_speed(checkpoint: Path, precision: str) -> float:
    """Return the images a second that a checkpoint's network predicts here and now, without TTA, on seeded noise.

    The median over batches of ``EVAL_BATCH`` images, from the second on, for ``_SPEED_SECONDS`` or one batch.
    """
    predictor = Predictor(checkpoint, precision=precision)
    shape = (EVAL_BATCH, predictor.info.size, predictor.info.size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    predictor.logits(images)
    seconds, began = list[float](), time.monotonic()
    while not seconds or time.monotonic() - began < _SPEED_SECONDS:
        start = time.monotonic()
        predictor.logits(images)
        seconds.append(time.monotonic() - start)
    return EVAL_BATCH / statistics.median(seconds)
