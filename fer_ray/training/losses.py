"""The training loss: cross-entropy to labels, soft labels or mixed labels, and distillation."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from fer_ray.config.schema import LossConfig
from fer_ray.dataset.store import DatasetInfo, Split
from fer_ray.emotions import EMOTIONS, NUM_CLASSES, csv_order
from fer_ray.errors import FerRayError, UsageError
from fer_ray.inference.checkpoint import Checkpoint
from fer_ray.inference.device import LAYOUT, autocast, to_device
from fer_ray.inference.predictor import load_members
from fer_ray.training.rows import Batch


def class_sums(split: Split, soft_labels: bool) -> np.ndarray:
    """Return the rows of each class, or the sums of their soft labels; float64, K, csv order."""
    if soft_labels:
        assert split.soft_labels is not None, "a dataset with soft labels has them in each split"
        return np.asarray(split.soft_labels.sum(0, dtype=np.float64))
    return np.bincount(split.labels, minlength=NUM_CLASSES).astype(np.float64)


def class_weights(counts: np.ndarray, config: LossConfig) -> np.ndarray:
    """Return one weight per class, with mean 1 over the samples.

    The weights are inverse frequencies to the power ``class_weight_power``; or effective numbers, (1 - beta) /
    (1 - beta ** n) for n samples (Cui et al., arXiv 1901.05555, where they sum to K); or ``class_weights``. Each weight
    is then multiplied by its entry of ``class_multipliers``. A class without images has weight 0. ``counts``, K, are
    the training images of each class, or the sums of their soft labels.
    """
    present = counts > 0
    weights = np.zeros(len(counts), np.float64)
    samples = counts[present].astype(np.float64)
    if config.class_weights is not None:
        weights[present] = np.array(config.class_weights)[present]
    elif config.effective_number is not None:
        weights[present] = (1 - config.effective_number) / (1 - config.effective_number**samples)
    else:
        weights[present] = samples**-config.class_weight_power
    weights *= [getattr(config.class_multipliers, name) for name in EMOTIONS]
    weights *= counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)


class Loss:
    """The configured loss.

    For label targets, torch divides the weighted cross-entropy by the sum of the labels' weights; for distributions, by
    the number of rows. This loss always divides by the sum of the weights, so a one-hot distribution gives the same
    loss as its label.
    """

    def __init__(self, config: LossConfig, weight: np.ndarray, device: torch.device):
        self._config = config
        self._one_hot = torch.eye(NUM_CLASSES, device=device)
        smoothed = self._one_hot * (1 - config.label_smoothing) + config.label_smoothing / NUM_CLASSES
        weight_k = torch.tensor(weight, device=device)
        # Row k: the negative factors of the log probabilities for label k, and the weight of label k.
        self._factors = torch.cat([-smoothed * weight_k, weight_k.unsqueeze(1)], dim=1)

    def targets(self, batch: Batch) -> torch.Tensor:
        """Return the target distribution of each row, float32, B × K. Each row sums to 1."""
        if self._config.soft_labels:
            assert batch.shares is not None, "a dataset with soft labels has them in each split"
            return batch.shares
        return self._one_hot[batch.labels]

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, teachers: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mean loss of a batch from logits, target distributions and the teachers' probabilities, B × K."""
        factors = targets @ self._factors
        log_probs = logits.log_softmax(dim=1)
        terms = factors[:, :-1] * log_probs
        if self._config.focal_gamma:  # Lin et al., arXiv 1708.02002
            terms = terms * (1 - log_probs.exp()) ** self._config.focal_gamma
        loss = terms.sum() / factors[:, -1].sum()
        if teachers is None:
            return loss
        share = self._config.distill_weight
        return (1 - share) * loss + share * F.cross_entropy(logits, teachers)


class Teachers:
    """Checkpoints whose mean calibrated probabilities are soft targets (Hinton et al., arXiv 1503.02531).

    Teachers predict on the augmented images. Predictions stored once for the plain images would train a worse student
    (Beyer et al., arXiv 2106.05237). ``UsageError`` if a checkpoint is named twice, can't be read, or expects images of
    another size.
    """

    def __init__(self, folders: Sequence[str], info: DatasetInfo, device: torch.device, dtype: torch.dtype):
        self._info, self._device, self._dtype = info, device, dtype
        self._members = load_teachers(folders, info)
        for member in self._members:
            to_device(member.model, device).eval()

    @torch.no_grad()
    def probabilities(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Return float32 probabilities, B × K, csv order, of images normalised by the dataset's mean and deviation."""
        size = self._info.size
        if images_bchw.shape[-1] != size:
            images_bchw = F.interpolate(images_bchw, size=(size, size), mode="bilinear", antialias=False)
        grey = images_bchw * self._info.std + self._info.mean
        return torch.stack([self._probabilities_of(member, grey) for member in self._members]).mean(dim=0)

    def _probabilities_of(self, member: Checkpoint, grey_bchw: torch.Tensor) -> torch.Tensor:
        own = ((grey_bchw - member.info.mean) / member.info.std).contiguous(memory_format=LAYOUT)
        with autocast(self._device, self._dtype):
            logits: torch.Tensor = member.model(own)
        in_order = logits.float()[:, csv_order(member.info.label_names)]
        return (in_order / member.info.temperature).softmax(dim=1)


def load_teachers(folders: Sequence[str], info: DatasetInfo) -> list[Checkpoint]:
    """Read teachers. Raises as ``Teachers`` does."""
    try:
        return load_members(folders, info.size)
    except FerRayError as error:
        raise UsageError([f"loss.teachers: {problem}" for problem in error.problems]) from error
