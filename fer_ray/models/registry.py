"""The networks by name. Each family's file registers its networks; ``build`` makes one from a configuration."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import UsageError, did_you_mean
from fer_ray.models.front import GreyToImageNet

Builder = Callable[[ModelConfig, int, int], nn.Module]  # of the image size in pixels and the number of classes


@dataclass(frozen=True)
class Architecture:
    """A network by the name that the configuration's ``model.name`` gives it."""

    name: str
    summary: str  # one line for ``fer-ray models``
    build: Builder
    stages: tuple[tuple[str, ...], ...]  # module names of each, from the input to the classifier, a stage of its own
    any_size: bool = True  # whether one network takes images of several sizes, as progressive resizing needs
    torchvision: str | None = None  # torchvision's name of the network and its ImageNet weights, if it has them
    unused_weights: tuple[str, ...] = ()  # prefixes of tensor names in these weights that the network doesn't use


_REGISTRY: dict[str, Architecture] = {}


def register(
    name: str, summary: str, stages: tuple[tuple[str, ...], ...], **options: Any
) -> Callable[[Builder], Builder]:
    """Register the decorated builder under a new name. The arguments are those of ``Architecture``."""

    def add(build: Builder) -> Builder:
        if name in _REGISTRY:
            raise ValueError(f"architecture '{name}' is registered twice")
        _REGISTRY[name] = Architecture(name, summary, build, stages, **options)
        return build

    return add


def architectures() -> list[Architecture]:
    """Return all architectures, sorted by name."""
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def find(name: str) -> Architecture:
    """Return an architecture; ``UsageError``, with similar names, if the name is unknown."""
    if name not in _REGISTRY:
        near = did_you_mean(name, _REGISTRY)
        raise UsageError(f"model.name = '{name}': no such architecture.{near} Known: {', '.join(sorted(_REGISTRY))}.")
    return _REGISTRY[name]


def first_size(config: Config) -> float:
    """Return the side of the first epoch's images as a fraction of the full side. Resolves the automatic choice.

    ``UsageError`` if the architecture is unknown, or needs one size but ``schedule.first_size`` is below 1.
    """
    any_size, enlarged = find(config.model.name).any_size, config.model.input_size is not None
    requested = config.schedule.first_size
    if requested is None:  # smaller images save nothing where all are enlarged to input_size
        return 0.667 if any_size and not enlarged else 1.0
    if requested < 1 and not (any_size or enlarged):
        raise UsageError(
            f"schedule.first_size = {requested:g}: '{config.model.name}' needs images of one size. Set it to 1 or null."
        )
    return requested


def can_grow(config: Config) -> bool:
    """Return whether a run's first epochs could use smaller images but don't. Raises as ``first_size`` does."""
    return find(config.model.name).any_size and first_size(config) == 1


def has_imagenet_stem(config: ModelConfig) -> bool:
    """Return whether a network has torchvision's first layers, for RGB images.

    ``UsageError`` if the architecture is unknown, or has no ImageNet stem but ``stem`` requests one.
    """
    ours = find(config.name).torchvision is None
    if ours and config.stem == "imagenet":
        raise UsageError(f"model.stem = 'imagenet': '{config.name}' has no ImageNet stem. Set it to auto.")
    return config.stem == "imagenet" or (config.stem == "auto" and config.pretrained is not None and not ours)


def build(config: ModelConfig, size: int, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Make a network with random weights from torch's global generator. ``initialize`` loads pretrained weights.

    The network maps a normalised grey batch, float, B × 1 × size × size, to logits, B × num_classes. ``UsageError`` if
    the architecture is unknown, or doesn't support the stem or the input size.
    """
    architecture, side = find(config.name), config.input_size or size
    if side < size:
        raise UsageError(
            f"model.input_size = {side}: below the images' side of {size} pixels; images can only be enlarged. Set it"
            f" to {size} or more, or prepare the dataset again with --size {side}."
        )
    front: list[nn.Module] = [nn.Upsample((side, side), mode="bilinear")] if config.input_size else []
    front += [GreyToImageNet()] if has_imagenet_stem(config) else []
    body = architecture.build(config, side, num_classes)
    return nn.Sequential(OrderedDict(front=nn.Sequential(*front), body=body)) if front else body


def without_front(model: nn.Module) -> nn.Module:
    """Return the body of a network with a front, or the network itself."""
    body: nn.Module = getattr(model, "body", model)
    return body


def stages(name: str, model: nn.Module) -> list[list[nn.Module]]:
    """Return the stages of a network from ``build``, from the input to the classifier, which is a stage of its own.

    Every parameter is in exactly one stage. ``UsageError`` if the architecture is unknown.
    """
    body = without_front(model)
    return [[body.get_submodule(path) for path in stage] for stage in find(name).stages]
