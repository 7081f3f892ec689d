"""torchvision's residual networks, adapted to small grey images.

The ImageNet stem (7×7 stride 2, then max-pool) leaves 48×48 faces 12 pixels wide before the first block. The small stem
is a 3×3 convolution of stride 1 without the pool, as He et al. (arXiv 1512.03385, section 4.2) do for CIFAR.
"""

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import has_imagenet_stem, register

_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("fc",))


@register("resnet18", "torchvision ResNet-18, 3×3 stem without stride", _STAGES, torchvision="resnet18")
@register("resnet34", "torchvision ResNet-34, the same stem", _STAGES, torchvision="resnet34")
@register("resnet50", "torchvision ResNet-50, the same stem", _STAGES, torchvision="resnet50")
def build_resnet(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Build the network that the configuration names: 8 or 16 basic blocks, or 16 bottleneck blocks."""
    from torchvision.models import get_model  # a slow import that other networks don't need

    network: nn.Module = get_model(config.name, num_classes=num_classes)
    if not has_imagenet_stem(config):
        network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    network.fc = Head(network.fc.in_features, num_classes, config.dropout)  # type: ignore[arg-type, union-attr]
    return network
