"""The networks: a registry and one file a family."""

from fer_ray.models import cnn3, fast, resnet
from fer_ray.models.registry import Architecture, architectures, build, find, first_size, stages

__all__ = ["Architecture", "architectures", "build", "cnn3", "fast", "find", "first_size", "resnet", "stages"]
