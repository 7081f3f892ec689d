"""The networks: a registry and one file a family."""

from fer_ray.models import cnn3, conv_bn, convnext, efficientnet, fast, inception, lenet, resnet, se_resnet, vgg  # noqa: F401  # noqa: F401
from fer_ray.models.pretrained import initialize
from fer_ray.models.registry import architectures, build, can_grow, find, first_size, stages

__all__ = ["architectures", "build", "can_grow", "find", "first_size", "initialize", "stages"]
