"""The architectures by name. A family's file registers its networks; ``build`` makes one from a configuration."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fer_ray.config import ModelConfig, did_you_mean
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import UsageError

Builder = Callable[[ModelConfig, int, int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        name: what the configuration's ``model.name`` says.
        summary: one line for ``fer-ray models``.
        build: makes it from the model configuration, the image size in pixels and the number of classes.
    """

    name: str
    summary: str
    build: Builder


_REGISTRY: dict[str, Architecture] = {}


def register(name: str, summary: str) -> Callable[[Builder], Builder]:
    """Register the decorated builder under a name.

    Raises:
        ValueError: the name is taken.
    """

    def add(build: Builder) -> Builder:
        if name in _REGISTRY:
            raise ValueError(f"architecture '{name}' is registered twice")
        _REGISTRY[name] = Architecture(name, summary, build)
        return build

    return add


def architectures() -> list[Architecture]:
    """Return all architectures, by name."""
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def check_name(name: str) -> None:
    """Raise UsageError, naming near ones, where no architecture has this name."""
    if name not in _REGISTRY:
        near = did_you_mean(name, _REGISTRY)
        raise UsageError(f"model.name = '{name}': no such architecture.{near} Known: {', '.join(sorted(_REGISTRY))}.")


def build(config: ModelConfig, size: int, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Make a network with fresh weights from torch's global generator.

    Its input is a normalised grey batch, float, B × 1 × size × size; its output logits, B × num_classes.

    Raises:
        UsageError: no architecture has this name.
    """
    check_name(config.name)
    return _REGISTRY[config.name].build(config, size, num_classes)
