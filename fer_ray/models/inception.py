"""torchvision's GoogLeNet, the first Inception network (Szegedy et al., arXiv 1409.4842), without auxiliary heads.

The ImageNet stem divides an image's side by eight before the first Inception module, which leaves 6 pixels of 48. The
small stem is a 3×3 convolution of stride 1 without the first pool. The modules then see 24, 12 and 6 pixels, close to
the 28, 14 and 7 of ImageNet's images.
"""

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import has_imagenet_stem, register

_STAGES = (
    ("conv1", "conv2", "conv3"),
    ("inception3a", "inception3b"),
    ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
    ("inception5a", "inception5b"),
    ("fc",),
)


@register(
    "inception",
    "torchvision GoogLeNet (Inception v1), 3×3 stem without stride",
    _STAGES,
    torchvision="googlenet",
    unused_weights=("aux1.", "aux2."),
)
def inception(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Nine Inception modules."""
    from torchvision.models import googlenet as make  # a slow import that other networks don't need
    from torchvision.models.googlenet import BasicConv2d

    rgb = has_imagenet_stem(config)
    # The ImageNet weights come from TensorFlow, with images scaled to -1 to 1; `transform_input` scales images so.
    # `init_weights=False` gives torch's initial values; torchvision's take seconds and are about to be removed there.
    network: nn.Module = make(
        num_classes=num_classes, aux_logits=False, init_weights=False, dropout=0, transform_input=rgb
    )
    if not rgb:
        network.conv1 = BasicConv2d(1, 64, kernel_size=3, padding=1)
        network.maxpool1 = nn.Identity()
    network.fc = Head(1024, num_classes, config.dropout)
    return network
