"""A Keras network for FER-2013 from many tutorials, with batch norm and dropout after every layer.

Layers and widths are from J. Oheix, "From raw images to real-time predictions with Deep Learning", Towards Data
Science, January 2019, and its Kaggle notebook.
"""

from collections import OrderedDict

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.registry import register

_STAGES = (("conv1",), ("conv2",), ("conv3",), ("conv4",), ("dense",), ("classifier",))


@register("conv_bn", "4 conv, 2 dense, batch norm and dropout everywhere; Keras tutorials", _STAGES, any_size=False)
def conv_bn(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Conv of 64, 128 (5×5), 512 and 512 channels, dense 256 and 512; after each batch norm, ReLU and dropout."""
    dropout = config.dropout
    return nn.Sequential(
        OrderedDict(
            conv1=_convolution(1, 64, 3, dropout),
            conv2=_convolution(64, 128, 5, dropout),
            conv3=_convolution(128, 512, 3, dropout),
            conv4=_convolution(512, 512, 3, dropout),
            dense=nn.Sequential(
                nn.Flatten(), *_dense(512 * (size // 16) ** 2, 256, dropout), *_dense(256, 512, dropout)
            ),
            classifier=nn.Linear(512, num_classes),
        )
    )


def _convolution(inputs: int, outputs: int, kernel: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),  # before ReLU: the same values for a quarter of the work
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


def _dense(inputs: int, outputs: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)]
