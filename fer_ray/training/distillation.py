"""Knowledge distillation: train on the predictions of other checkpoints."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fer_ray.dataset.store import DatasetInfo
from fer_ray.emotions import csv_order
from fer_ray.errors import FerRayError, UsageError
from fer_ray.inference.checkpoint import Checkpoint
from fer_ray.inference.device import LAYOUT, autocast, to_device
from fer_ray.inference.predictor import load_members


class Teachers:
    """Checkpoints whose mean calibrated probabilities are soft targets (Hinton et al., arXiv 1503.02531).

    Teachers predict on the augmented images. Predictions stored once for the plain images would train a worse student
    (Beyer et al., arXiv 2106.05237).

    Raises:
        UsageError: a checkpoint is named twice, can't be read, or expects images of another size.
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
