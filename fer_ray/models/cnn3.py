"""The three-convolution network that student projects build for FER-2013 with Keras."""

from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.models.registry import register


@register("cnn3", "3 conv + max-pool, 2 dense, as student projects build it", any_size=False)
def cnn3(config: ModelConfig, size: int, num_classes: int) -> nn.Module:
    """Conv 3×3 of 32, 64 and 128 channels, each with ReLU and max-pool; dense 256 and 128 with dropout."""
    side = size // 8
    return nn.Sequential(
        *_stage(1, 32),
        *_stage(32, 64),
        *_stage(64, 128),
        nn.Flatten(),
        nn.Linear(128 * side * side, 256),
        nn.ReLU(inplace=True),
        nn.Dropout(config.dropout),
        nn.Linear(256, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(config.dropout),
        nn.Linear(128, num_classes),
    )


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
