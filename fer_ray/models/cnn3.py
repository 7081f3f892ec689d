"""The network of three convolutions that student projects build for FER-2013 with Keras."""

from collections import OrderedDict

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import register

_STAGES = (("conv1",), ("conv2",), ("conv3",), ("dense",), ("classifier",))


@register("cnn3", "3 conv + max-pool, 2 dense, as student projects build it", _STAGES, any_size=False)
def cnn3(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Conv 3×3 of 32, 64 and 128 channels, each with ReLU and max-pool; dense 256 and 128 with dropout."""
    dense = nn.Sequential(
        nn.Flatten(),
        nn.Linear(128 * (size // 8) ** 2, 256),
        nn.ReLU(inplace=True),
        nn.Dropout(config.dropout),
        nn.Linear(256, 128),
        nn.ReLU(inplace=True),
    )
    return nn.Sequential(
        OrderedDict(
            conv1=_convolution(1, 32),
            conv2=_convolution(32, 64),
            conv3=_convolution(64, 128),
            dense=dense,
            classifier=Head(128, num_classes, config.dropout),
        )
    )


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    # ReLU after max-pool gives the same values for a quarter of the work.
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True))
