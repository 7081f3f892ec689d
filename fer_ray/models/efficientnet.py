"""torchvision's EfficientNet-B0 (Tan & Le, arXiv 1905.11946), adapted to small grey images.

The network halves an image five times, which would leave less than 2 pixels of 48. In the small stem the first
convolution has stride 1, so the last blocks see 3 × 3 pixels. Stochastic depth is torchvision's.
"""

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import has_imagenet_stem, register

_STAGES = (*((f"features.{index}",) for index in range(8)), ("features.8",), ("classifier.1",))


@register("efficientnet_b0", "torchvision EfficientNet-B0, stem without stride", _STAGES, torchvision="efficientnet_b0")
def efficientnet_b0(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Sixteen inverted residual blocks with squeeze-and-excitation."""
    from torchvision.models import get_model  # a slow import that other networks don't need

    network = get_model("efficientnet_b0", num_classes=num_classes)
    if not has_imagenet_stem(config):
        stem = network.features[0][0]
        network.features[0][0] = nn.Conv2d(1, stem.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")  # as in torchvision
    network.classifier[0] = nn.Identity()
    network.classifier[1] = Head(network.classifier[1].in_features, num_classes, config.dropout)
    result: nn.Module = network
    return result
