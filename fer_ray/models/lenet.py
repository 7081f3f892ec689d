"""LeNet-5 (LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B) for faces.

Widths and 5×5 kernels are the original ones. Batch norm, ReLU, max-pool and dropout replace the scaled tanh, trained
subsampling and RBF outputs of 1998, as in today's student projects.
"""

from collections import OrderedDict

from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.models.front import Head
from fer_ray.models.registry import register

_STAGES = (("conv1",), ("conv2",), ("dense1",), ("dense2",), ("classifier",))


@register("lenet", "LeNet-5 with batch norm and dropout", _STAGES, any_size=False)
def lenet(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Conv 5×5 of 6 and 16 channels without padding, each with max-pool; dense 120 and 84."""
    side = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        OrderedDict(
            conv1=_convolution(1, 6),
            conv2=_convolution(6, 16),
            flatten=nn.Flatten(),
            dense1=_dense(16 * side * side, 120, config.dropout),
            dense2=_dense(120, 84, config.dropout),
            classifier=Head(84, num_classes, config.dropout),
        )
    )


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    # ReLU after max-pool gives the same values for a quarter of the work.
    return nn.Sequential(nn.Conv2d(inputs, outputs, 5), nn.BatchNorm2d(outputs), nn.MaxPool2d(2), nn.ReLU(inplace=True))


def _dense(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)
    )
