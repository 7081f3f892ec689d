"""Transfer learning: start a fresh network from weights that were trained elsewhere."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.errors import DataError, UsageError
from fer_ray.models.front import GreyToImageNet
from fer_ray.models.registry import Architecture, architectures, find, has_imagenet_stem, without_front
from fer_ray.storage.folder import WEIGHTS_FILE, checkpoint_within
from fer_ray.storage.inputs import local_copy

_NAMED = 3  # tensors in an error message

Weights = dict[str, torch.Tensor]


def initialize(model: nn.Module, config: ModelConfig, mean: float, std: float) -> list[str]:
    """Fit a network fresh from ``build`` to a dataset, and load the weights that the configuration names.

    The tensors may be named as in torchvision's files or as in a checkpoint of ours. A classifier for another number of
    classes is left as it was drawn; everything else has to fit.

    Args:
        model: on the CPU, made from the same configuration; changed in place.
        config: ``pretrained`` says which weights: None none, ``imagenet`` torchvision's own, fetched into torch.hub's
            folder unless they lie there; else a .safetensors file, a torch state dict or a checkpoint folder.
        mean: of the dataset's training pixels, 0 to 1, by which its images are normalised.
        std: of the same pixels.

    Returns:
        The names of the parameters that no weights were loaded for; empty where none were asked for.

    Raises:
        UsageError: the architecture has no ImageNet weights, or they can't be fetched, or there is no such path.
        DataError: the file is damaged, or of another network.
    """
    for module in model.modules():
        if isinstance(module, GreyToImageNet):
            module.set_normalization(mean, std)
    if config.pretrained is None:
        return []
    from_imagenet = config.pretrained == "imagenet"
    weights = _imagenet(find(config.name)) if from_imagenet else _read(local_copy(config.pretrained))
    return _load(without_front(model), config, weights)


def _imagenet(architecture: Architecture) -> Weights:
    if architecture.torchvision is None:
        those = ", ".join(each.name for each in architectures() if each.torchvision)
        raise UsageError(
            f"model.pretrained = 'imagenet': '{architecture.name}' was never trained on ImageNet; these were: {those}."
            " Choose one of them, name a checkpoint folder, or set it to null."
        )
    from torchvision.models import get_model_weights  # takes as long to import as torch

    origin = get_model_weights(architecture.torchvision).DEFAULT
    file, folder = Path(origin.url).name, Path(torch.hub.get_dir(), "checkpoints")
    try:
        weights: Weights = origin.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # beside the network's errors: a damaged file makes the unpickler stumble over anything
        raise UsageError(
            f"model.pretrained = 'imagenet': {origin.url} can't be had: {_reason(error)}. Put {file} into {folder}, or"
            f" name it by its path: model.pretrained=PATH/{file}."
        ) from error
    return weights


def _read(path: Path) -> Weights:
    """Read a state dict from a file or from a checkpoint folder."""
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        inside = checkpoint_within(path, WEIGHTS_FILE)
        hint = f"Did you mean {inside}?" if inside else "Name `imagenet`, a file or a checkpoint folder."
        what = f"has no {WEIGHTS_FILE}" if path.is_dir() else "no such file or folder"
        raise UsageError(f"model.pretrained = '{path}': {what}. {hint}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noise makes the unpickler stumble over anything
        raise DataError(
            f"model.pretrained = '{file}': not readable as weights: {_reason(error)}. Name a .safetensors file or what"
            " torch.save wrote of a state dict, tensors only."
        ) from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        keys = f" with {_some(map(str, weights))}" if isinstance(weights, Mapping) else ""
        raise DataError(
            f"model.pretrained = '{file}': holds a {type(weights).__name__}{keys}, not tensors by name. Save the"
            " network's state_dict() alone."
        )
    return dict(weights)


def _load(body: nn.Module, config: ModelConfig, weights: Weights) -> list[str]:
    """Copy the weights that fit, and return the names of the classifier's parameters where it stays as it was."""
    architecture = find(config.name)
    ((classifier,),) = architecture.stages[-1:]
    own = body.state_dict()
    # A checkpoint of ours may hold a front, which belongs to its own dataset.
    given = {
        name.removeprefix("body."): tensor
        for name, tensor in weights.items()
        if not name.startswith(("front.", *architecture.unused_weights))
    }
    fitting = {name for name in own.keys() & given.keys() if own[name].shape == given[name].shape}
    head = {name for name in own.keys() | given.keys() if name.startswith(f"{classifier}.")}
    fresh_head = bool(head - fitting)
    # Counters of batch norm came later than some of torchvision's files, and matter only without a momentum.
    counters = {name for name in own.keys() - given.keys() if name.endswith("num_batches_tracked")}
    unfit = (own.keys() | given.keys()) - fitting - head - counters
    if unfit:
        raise DataError(_misfit(config, own, given, unfit))
    loaded = fitting - head if fresh_head else fitting
    wild = sorted(name for name in loaded if not given[name].isfinite().all())
    if wild:
        raise DataError(
            f"model.pretrained = '{config.pretrained}': {_some(wild)} hold values that are not finite. Name"
            " weights of a training that did not diverge."
        )
    body.load_state_dict({name: given[name] for name in loaded}, strict=False)
    return sorted(head & own.keys()) if fresh_head else []


def _misfit(config: ModelConfig, own: Weights, given: Weights, unfit: set[str]) -> str:
    groups = {
        "missing": sorted(unfit - given.keys()),
        "not part of it": sorted(unfit - own.keys()),
        "of another shape": [
            f"{each} {_shape(given[each])} instead of {_shape(own[each])}"
            for each in sorted(unfit & own.keys() & given.keys())
        ],
    }
    found = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in groups.items() if names)
    stem = tuple(f"{module}." for module in find(config.name).stages[0])
    remedy = f"Name weights of a {config.name}."
    if find(config.name).torchvision and all(name.startswith(stem) for name in unfit):
        other = "small" if has_imagenet_stem(config) else "imagenet"
        remedy = f"The first layers alone differ: these weights were trained with model.stem={other}."
    return f"model.pretrained = '{config.pretrained}': its tensors don't fit '{config.name}': {found}. {remedy}"


def _some(names: Iterable[str]) -> str:
    first = list(itertools.islice(names, _NAMED + 1))
    return ", ".join(first[:_NAMED]) + (", …" if len(first) > _NAMED else "")


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _reason(error: BaseException) -> str:
    first_line = str(getattr(error, "reason", error)).partition("\n")[0]  # torch adds paragraphs of advice
    return ": ".join(part for part in (type(error).__name__, first_line.partition(". ")[0]) if part)
