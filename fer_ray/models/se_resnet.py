"""A wide residual network with squeeze-and-excitation for faces of about 48 × 48 pixels.

Blocks and the widths 160, 320 and 640 are those of wide residual networks, with norm and ReLU before each convolution
(Zagoruyko & Komodakis, arXiv 1605.07146, section 2). The first stage is narrow, because at full resolution width costs
most. Each block has squeeze-and-excitation (Hu, Shen & Sun, arXiv 1709.01507, section 3, reduction 16).
"""

import torch
import torch.nn.functional as F
from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import register

_WIDTHS = (64, 160, 320, 640)
_BLOCKS = 2  # per stage; with stem and classifier 18 layers
_REDUCTION = 16
_STAGES = (("stem",), *((f"stage{number}",) for number in range(1, 4)), ("stage4", "norm"), ("classifier",))


class SqueezeExcitation(nn.Module):
    """Multiply each channel by a gate, 0 to 1, that is computed from the means of all channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // _REDUCTION)
        self.excite = nn.Linear(channels // _REDUCTION, channels)

    def forward(self, features_bchw: torch.Tensor) -> torch.Tensor:
        """Map B × channels × H × W to the same shape."""
        means_bc = features_bchw.mean((2, 3))
        gates_bc = self.excite(F.relu(self.squeeze(means_bc))).sigmoid()
        gated: torch.Tensor = features_bchw * gates_bc[:, :, None, None]
        return gated


class SEBlock(nn.Module):
    """Norm, ReLU and 3×3 convolution, twice, and squeeze-and-excitation, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.gate = SqueezeExcitation(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, features_bchw: torch.Tensor) -> torch.Tensor:
        """Map B × inputs × H × W to B × outputs × H / stride × W / stride."""
        activated = F.relu(self.norm1(features_bchw))
        shortcut = features_bchw if self.shortcut is None else self.shortcut(activated)
        residual = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        result: torch.Tensor = shortcut + self.gate(residual)
        return result


class SEResNet(nn.Module):
    """A 3×3 stem, four stages of two blocks, and global mean pooling. All stages but the first halve the image."""

    def __init__(self, dropout: float, num_classes: int):
        super().__init__()
        self.stem = nn.Conv2d(1, _WIDTHS[0], 3, padding=1, bias=False)
        inputs = (_WIDTHS[0], *_WIDTHS)
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(
                SEBlock(inputs[number], width, stride=1 if number == 0 else 2),
                *(SEBlock(width, width, stride=1) for _ in range(1, _BLOCKS)),
            )
            for number, width in enumerate(_WIDTHS)
        )
        self.norm = nn.BatchNorm2d(_WIDTHS[-1])
        self.classifier = Head(_WIDTHS[-1], num_classes, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Map a normalised grey batch, B × 1 × H × W, to logits, B × num_classes."""
        features_bchw = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(images_bchw)))))
        logits: torch.Tensor = self.classifier(F.relu(self.norm(features_bchw)).mean((2, 3)))
        return logits


@register("se_resnet18", "ours: wide, with squeeze-and-excitation, for 48 × 48 from scratch", _STAGES)
def se_resnet18(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Build ``SEResNet``, which takes images of 8 pixels or more."""
    return SEResNet(config.dropout, num_classes)
