"""torchvision's ConvNeXt-T (Liu et al., arXiv 2201.03545), adapted to small grey images.

The ImageNet stem cuts an image into patches of 4 × 4 pixels, and three more steps halve the image, which would leave
1.5 pixels of 48. The small stem has patches of 2 × 2 pixels, so the four stages see 24, 12, 6 and 3 pixels. Stochastic
depth and layer scale are torchvision's.
"""

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import has_imagenet_stem, register

# The stem, then each stage with the halving before it. The last stage includes the norm before the classifier.
_STAGES = (
    ("features.0",),
    ("features.1",),
    ("features.2", "features.3"),
    ("features.4", "features.5"),
    ("features.6", "features.7", "classifier.0"),
    ("classifier.2",),
)


@register("convnext_tiny", "torchvision ConvNeXt-T, 2×2 patches", _STAGES, torchvision="convnext_tiny")
def convnext_tiny(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Eighteen blocks of depthwise 7×7 convolution, layer norm and an inverted bottleneck."""
    from torchvision.models import get_model  # a slow import that other networks don't need

    network = get_model("convnext_tiny", num_classes=num_classes)
    if not has_imagenet_stem(config):
        network.features[0][0] = nn.Conv2d(1, network.features[0][0].out_channels, 2, stride=2)
        _initialize(network.features[0][0])
    network.classifier[2] = Head(network.classifier[2].in_features, num_classes, config.dropout)
    _initialize(network.classifier[2])
    result: nn.Module = network
    return result


def _initialize(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw initial weights as in appendix A.1 and in torchvision's other layers."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
