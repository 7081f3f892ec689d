"""torchvision's VGG networks with batch norm, adapted to small grey images (Simonyan & Zisserman, arXiv 1409.1556).

The small and the ImageNet stem differ only in their input channels.

Five poolings leave 2×2 pixels of a 48×48 face. torchvision's classifier would repeat them to 7×7 pixels before dense
layers of width 4,096, which hold 120 of its 134 million weights. One linear layer over the mean replaces them, as in
networks for CIFAR and FER-2013 (WuJie1010/Facial-Expression-Recognition.Pytorch, models/vgg.py). Pooling rounds sizes
up. Rounded down, the last pooling would drop the right and bottom third of the face.
"""

import itertools
from collections import OrderedDict

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import has_imagenet_stem, register


def _stages(*convolutions: int) -> tuple[tuple[str, ...], ...]:
    """Return the module names of each stage: convolutions, each with norm and ReLU, and a pooling."""
    numbers = itertools.count()
    groups = (tuple(f"features.{next(numbers)}" for _ in range(3 * count + 1)) for count in convolutions)
    return (*groups, ("classifier",))


_16, _19 = _stages(2, 2, 3, 3, 3), _stages(2, 2, 4, 4, 4)


@register("vgg16", "torchvision VGG-16 with batch norm, one linear layer", _16, torchvision="vgg16_bn")
@register("vgg19", "torchvision VGG-19 with batch norm, one linear layer", _19, torchvision="vgg19_bn")
def build_vgg(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Build the network that the configuration names: 13 convolutions (configuration D), or 16 (E)."""
    from torchvision.models import vgg  # a slow import that other networks don't need

    features = vgg.make_layers(vgg.cfgs["D" if config.name == "vgg16" else "E"], batch_norm=True)
    if not has_imagenet_stem(config):
        features[0] = nn.Conv2d(1, 64, 3, padding=1)
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
        elif isinstance(module, nn.Conv2d):  # as in torchvision's VGG class
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    head = Head(512, num_classes, config.dropout)
    return nn.Sequential(
        OrderedDict(features=features, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=head)
    )
