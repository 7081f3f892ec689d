"""The networks: a registry and one file a family."""

from fer_ray.models import cnn3, conv_bn, convnext, efficientnet, fast, inception, lenet, resnet, se_resnet, vgg
from fer_ray.models.pretrained import initialize
from fer_ray.models.registry import Architecture, architectures, build, can_grow, find, first_size, stages

__all__ = [
    "Architecture",
    "architectures",
    "build",
    "can_grow",
    "cnn3",
    "conv_bn",
    "convnext",
    "efficientnet",
    "fast",
    "find",
    "first_size",
    "inception",
    "initialize",
    "lenet",
    "resnet",
    "se_resnet",
    "stages",
    "vgg",
]
