"""The classifier at the end of a network."""

import torch
from torch import nn


class Head(nn.Linear):
    """Dropout, then a linear layer; its tensors have the names of a plain linear layer's, as in torchvision's files."""

    def __init__(self, inputs: int, num_classes: int, dropout: float):
        super().__init__(inputs, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features_bc: torch.Tensor) -> torch.Tensor:
        """Map features, B × inputs, to logits, B × num_classes."""
        return super().forward(self.dropout(features_bc))
