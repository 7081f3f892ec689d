"""The architectures by name. A family's file registers its networks; ``build`` makes one from a configuration."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fer_ray.config import Config, ModelConfig
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import UsageError, did_you_mean

Builder = Callable[[ModelConfig, int, int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        name: what the configuration's ``model.name`` says.
        summary: one line for ``fer-ray models``.
        any_size: whether one network takes images of several sizes, as training from small to full images needs.
        build: makes it from the model configuration, the image size in pixels and the number of classes.
    """

    name: str
    summary: str
    any_size: bool
    build: Builder


_REGISTRY: dict[str, Architecture] = {}


def register(name: str, summary: str, any_size: bool = True) -> Callable[[Builder], Builder]:
    """Register the decorated builder under a name.

    Raises:
        ValueError: the name is taken.
    """

    def add(build: Builder) -> Builder:
        if name in _REGISTRY:
            raise ValueError(f"architecture '{name}' is registered twice")
        _REGISTRY[name] = Architecture(name, summary, any_size, build)
        return build

    return add


def architectures() -> list[Architecture]:
    """Return all architectures, by name."""
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def find(name: str) -> Architecture:
    """Return an architecture.

    Raises:
        UsageError: none has this name; the message lists near ones.
    """
    if name not in _REGISTRY:
        near = did_you_mean(name, _REGISTRY)
        raise UsageError(f"model.name = '{name}': no such architecture.{near} Known: {', '.join(sorted(_REGISTRY))}.")
    return _REGISTRY[name]


def first_size(config: Config) -> float:
    """Return the side of the first epoch's images as a share of the full side, the automatic choice resolved.

    Raises:
        UsageError: no such architecture, or one of a single size that is asked to train on smaller images first.
    """
    any_size, asked = find(config.model.name).any_size, config.schedule.first_size
    if asked is None:
        return 0.667 if any_size else 1.0
    if asked < 1 and not any_size:
        raise UsageError(
            f"schedule.first_size = {asked:g}: '{config.model.name}' needs images of one size. Set it to 1 or null."
        )
    return asked


def build(config: ModelConfig, size: int, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Make a network with fresh weights from torch's global generator.

    Its input is a normalised grey batch, float, B × 1 × size × size; its output logits, B × num_classes.

    Raises:
        UsageError: no architecture has this name.
    """
    return find(config.name).build(config, size, num_classes)


def stages(name: str, model: nn.Module) -> list[nn.Module]:
    """Return the parts of a network that have weights, from the input to the classifier, which is the last."""
    return [child for child in model.children() if any(True for _ in child.parameters())]
