"""torchvision's residual networks, adapted to small grey images.

The ImageNet stem (7×7 stride 2, then max-pool) leaves 48×48 faces 12 pixels wide before the first block. Here it
is a 3×3 convolution of stride 1 without the pool, as He et al. (arXiv 1512.03385, section 4.2) do for CIFAR.
"""

from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.models.registry import register


@register("resnet18", "torchvision ResNet-18, 3×3 stem without stride for small images")
def resnet18(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """ResNet-18 with a small-image stem, grey input and dropout before the classifier."""
    from torchvision.models import resnet  # takes as long to import as torch, and most runs build another network

    network: nn.Module = resnet.resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(512, num_classes))
    return network
