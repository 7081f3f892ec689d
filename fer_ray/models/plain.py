"""Plain networks, convolutions and then dense layers, as student projects and tutorials build them.

``lenet`` is LeNet-5 (LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B) with
batch norm, ReLU, max-pool and dropout instead of scaled tanh, trained subsampling and RBF outputs. ``conv_bn`` has the
layers and widths of J. Oheix, "From raw images to real-time predictions with Deep Learning", Towards Data Science,
January 2019, and its Kaggle notebook.
"""

from collections import OrderedDict

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import register


def _convolution(inputs: int, outputs: int, kernel: int, padding: int, norm: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=padding)]
    layers += [nn.BatchNorm2d(outputs)] if norm else []
    # ReLU after max-pool gives the same values for a quarter of the work.
    return [*layers, nn.MaxPool2d(2), nn.ReLU(inplace=True)]


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]


@register(
    "cnn3",
    "3 conv + max-pool, 2 dense, as student projects build it",
    (("conv1",), ("conv2",), ("conv3",), ("dense",), ("classifier",)),
    any_size=False,
)
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
            conv1=nn.Sequential(*_convolution(1, 32, 3, 1, norm=False)),
            conv2=nn.Sequential(*_convolution(32, 64, 3, 1, norm=False)),
            conv3=nn.Sequential(*_convolution(64, 128, 3, 1, norm=False)),
            dense=dense,
            classifier=Head(128, num_classes, config.dropout),
        )
    )


@register(
    "conv_bn",
    "4 conv, 2 dense, batch norm and dropout everywhere; Keras tutorials",
    (("conv1",), ("conv2",), ("conv3",), ("conv4",), ("dense",), ("classifier",)),
    any_size=False,
)
def conv_bn(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Conv of 64, 128 (5×5), 512 and 512 channels, dense 256 and 512; after each batch norm, ReLU and dropout."""
    inputs, stages = 1, OrderedDict[str, nn.Module]()
    for number, (outputs, kernel) in enumerate(((64, 3), (128, 5), (512, 3), (512, 3)), 1):
        layers = _convolution(inputs, outputs, kernel, kernel // 2)
        stages[f"conv{number}"] = nn.Sequential(*layers, nn.Dropout(config.dropout))
        inputs = outputs
    first, second = _dense(512 * (size // 16) ** 2, 256), _dense(256, 512)
    stages["dense"] = nn.Sequential(
        nn.Flatten(), *first, nn.Dropout(config.dropout), *second, nn.Dropout(config.dropout)
    )
    stages["classifier"] = nn.Linear(512, num_classes)
    return nn.Sequential(stages)


@register(
    "lenet",
    "LeNet-5 with batch norm and dropout",
    (("conv1",), ("conv2",), ("dense1",), ("dense2",), ("classifier",)),
    any_size=False,
)
def lenet(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Conv 5×5 of 6 and 16 channels without padding, each with max-pool; dense 120 and 84."""
    side = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(*_convolution(1, 6, 5, 0)),
            conv2=nn.Sequential(*_convolution(6, 16, 5, 0)),
            flatten=nn.Flatten(),
            dense1=nn.Sequential(nn.Dropout(config.dropout), *_dense(16 * side * side, 120)),
            dense2=nn.Sequential(nn.Dropout(config.dropout), *_dense(120, 84)),
            classifier=Head(84, num_classes, config.dropout),
        )
    )
