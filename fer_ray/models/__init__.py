"""The networks: a registry and one file a family."""

from fer_ray.models import cnn3, fast, resnet
from fer_ray.models.registry import Architecture, architectures, build, check, find

__all__ = ["Architecture", "architectures", "build", "check", "cnn3", "fast", "find", "resnet"]
