"""The architectures by name. A family's file registers its networks; ``build`` makes one from a configuration."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import UsageError, did_you_mean
from fer_ray.models.front import Enlarge, Fronted, GreyToImageNet

Builder = Callable[[ModelConfig, int, int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        name: what the configuration's ``model.name`` says.
        summary: one line for ``fer-ray models``.
        build: makes it from the model configuration, the image size in pixels and the number of classes.
        stages: names of its modules from the input to the classifier, which is the last and alone.
        any_size: whether one network takes images of several sizes, as training from small to full images needs.
        torchvision: what torchvision calls it, under which its ImageNet weights are found; None for one of ours.
        unused_weights: beginnings of names of tensors in those weights for which there is no use here.
    """

    name: str
    summary: str
    build: Builder
    stages: tuple[tuple[str, ...], ...]
    any_size: bool = True
    torchvision: str | None = None
    unused_weights: tuple[str, ...] = ()


_REGISTRY: dict[str, Architecture] = {}


def register(
    name: str,
    summary: str,
    stages: tuple[tuple[str, ...], ...],
    *,
    any_size: bool = True,
    torchvision: str | None = None,
    unused_weights: tuple[str, ...] = (),
) -> Callable[[Builder], Builder]:
    """Register the decorated builder under a name; arguments as in ``Architecture``.

    Raises:
        ValueError: the name is taken.
    """

    def add(build: Builder) -> Builder:
        if name in _REGISTRY:
            raise ValueError(f"architecture '{name}' is registered twice")
        _REGISTRY[name] = Architecture(name, summary, build, stages, any_size, torchvision, unused_weights)
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
    any_size, enlarged = find(config.model.name).any_size, config.model.input_size is not None
    asked = config.schedule.first_size
    if asked is None:  # what the front enlarges costs the same however small it was
        return 0.667 if any_size and not enlarged else 1.0
    if asked < 1 and not (any_size or enlarged):
        raise UsageError(
            f"schedule.first_size = {asked:g}: '{config.model.name}' needs images of one size. Set it to 1 or null."
        )
    return asked


def can_grow(config: Config) -> bool:
    """Say whether a run's first epochs could have smaller images, and haven't.

    Raises:
        UsageError: as for ``first_size``.
    """
    return find(config.model.name).any_size and first_size(config) == 1


def has_imagenet_stem(config: ModelConfig) -> bool:
    """Say whether a network has the first layers, for RGB images, with which torchvision trained its weights.

    Raises:
        UsageError: no such architecture, or one of ours that is asked for them.
    """
    ours = find(config.name).torchvision is None
    if ours and config.stem == "imagenet":
        raise UsageError(f"model.stem = 'imagenet': '{config.name}' has but one stem. Set it to auto.")
    return config.stem == "imagenet" or (config.stem == "auto" and config.pretrained is not None and not ours)


def build(config: ModelConfig, size: int, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Make a network with fresh weights from torch's global generator; ``initialize`` loads pretrained ones.

    Its input is a normalised grey batch, float, B × 1 × size × size; its output logits, B × num_classes.

    Raises:
        UsageError: no architecture has this name, or it can't have the stem or the input size.
    """
    architecture = find(config.name)
    front: list[nn.Module] = [Enlarge(config.input_size)] if config.input_size else []
    front += [GreyToImageNet()] if has_imagenet_stem(config) else []
    if config.input_size is not None and config.input_size < size:
        raise UsageError(
            f"model.input_size = {config.input_size}: below the images' side of {size} pixels, and it only enlarges."
            f" Set it to {size} or more, or prepare the dataset again with --size {config.input_size}."
        )
    body = architecture.build(config, config.input_size or size, num_classes)
    return Fronted(nn.Sequential(*front), body) if front else body


def without_front(model: nn.Module) -> nn.Module:
    """Return the network behind the front, or the network itself where it has none."""
    return model.body if isinstance(model, Fronted) else model


def stages(name: str, model: nn.Module) -> list[list[nn.Module]]:
    """Return the trained parts of a network that ``build`` made, from the input to the classifier.

    Every parameter is in exactly one. The last is the classifier alone.

    Raises:
        UsageError: no architecture has this name.
    """
    body = without_front(model)
    return [[body.get_submodule(path) for path in stage] for stage in find(name).stages]
