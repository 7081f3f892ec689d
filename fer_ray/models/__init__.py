"""The networks: a registry and one file a family. They are imported at first use: ``--help`` here needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_ray.models.pretrained import initialize
    from fer_ray.models.registry import architectures, build, can_grow, find, first_size, stages
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(name)
        for family in _FAMILIES:
            import_module(f"fer_ray.models.{family}")
        registry, pretrained = import_module("fer_ray.models.registry"), import_module("fer_ray.models.pretrained")
        return getattr(pretrained if name == "initialize" else registry, name)


_FAMILIES = ("convnext", "efficientnet", "fast", "inception", "plain", "resnet", "se_resnet", "vgg")
__all__ = ["architectures", "build", "can_grow", "find", "first_size", "initialize", "stages"]
