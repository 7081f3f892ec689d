"""Layers around a network's body: grey to RGB, and the classifier."""

import torch
from torch import nn

# Mean and standard deviation of ImageNet's RGB values, 0 to 1. torchvision's weights expect images normalised by them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Head(nn.Linear):
    """Dropout, then a linear layer. Its state dict has the names of a plain linear layer, as in torchvision's files."""

    def __init__(self, inputs: int, num_classes: int, dropout: float):
        super().__init__(inputs, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features_bc: torch.Tensor) -> torch.Tensor:
        """Map features, B × inputs, to logits, B × num_classes."""
        return super().forward(self.dropout(features_bc))


class GreyToImageNet(nn.Module):
    """Turn grey images into RGB images normalised like ImageNet's.

    The input is normalised by its own dataset's mean and standard deviation. ``scale`` and ``shift`` undo this and
    apply ImageNet's normalisation in one step. They are buffers, so checkpoints hold them. Before ``set_normalization``
    each channel is a copy of the input.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))

    def set_normalization(self, mean: float, std: float) -> None:
        """Set the mean and standard deviation, of pixels from 0 to 1, by which the input is normalised."""
        imagenet_mean = self.shift.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        imagenet_std = self.scale.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
        self.scale.copy_(std / imagenet_std)
        self.shift.copy_((mean - imagenet_mean) / imagenet_std)

    def forward(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Map B × 1 × H × W to B × 3 × H × W."""
        return images_bchw * self.scale + self.shift
