"""A small network that trains to a useful accuracy in minutes on two CPU cores."""

import torch
import torch.nn.functional as F
from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import register

_STEM_WIDTH = 32
# Output channels of each convolution, by stage. Max-pooling halves the image at the end of the first two stages.
_STAGES = ((32,), (96, 96), (192, 192, 192))
_LOGIT_SCALE = 0.125
"""Scale of the logits. Without it the first logits are large, and SGD takes two epochs to shrink them."""


class FastBlock(nn.Module):
    """A 3×3 convolution, max-pool at the end of a stage, batch norm and ReLU, with a shortcut if the shape is kept."""

    def __init__(self, inputs: int, outputs: int, pool: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.pool = pool
        self.shortcut = inputs == outputs and not pool

    def forward(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Map B × inputs × H × W to B × outputs × H × W, or half that side where the block pools."""
        features = self.conv(images_bchw)
        if self.pool:
            features = F.max_pool2d(features, 2)
        features = F.relu(self.norm(features), inplace=True)
        return images_bchw + features if self.shortcut else features


class Fast(nn.Module):
    """A strided stem, three stages of blocks, and concatenated mean and max pooling.

    On a CPU, most of a small network's time goes to early, large feature maps. So the stem halves the image at once, a
    single narrow block follows, and most of the computation is at 12 × 12 and 6 × 6 pixels.
    """

    def __init__(self, dropout: float, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, _STEM_WIDTH, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(_STEM_WIDTH),
            nn.ReLU(inplace=True),
        )
        blocks, width = [], _STEM_WIDTH
        for number, stage in enumerate(_STAGES, start=1):
            for position, outputs in enumerate(stage, start=1):
                ends_stage = position == len(stage) and number < len(_STAGES)
                blocks.append(FastBlock(width, outputs, pool=ends_stage))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = Head(2 * width, num_classes, dropout)

    def forward(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Map a normalised grey batch, B × 1 × H × W, to logits, B × num_classes."""
        features_bchw = self.blocks(self.stem(images_bchw))
        pooled = torch.cat([features_bchw.mean((2, 3)), features_bchw.amax((2, 3))], dim=1)
        logits: torch.Tensor = self.classifier(pooled) * _LOGIT_SCALE
        return logits


_PARTS = (("stem",), ("blocks.0",), ("blocks.1", "blocks.2"), ("blocks.3", "blocks.4", "blocks.5"), ("classifier",))


@register("fast", "ours: strided stem, 6 conv with batch norm; minutes on two CPU cores", _PARTS)
def fast(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Build ``Fast``, which takes images of 16 pixels or more."""
    return Fast(config.dropout, num_classes)
