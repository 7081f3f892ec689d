"""Transfer learning: load pretrained weights into a new network."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from fer_ray.config.schema import ModelConfig
from fer_ray.errors import DataError, UsageError
from fer_ray.models.front import GreyToImageNet
from fer_ray.models.registry import Architecture, architectures, find, has_imagenet_stem, without_front
from fer_ray.storage.inputs import WEIGHTS_FILE, checkpoint_within, local_copy

Weights = dict[str, torch.Tensor]


def initialize(model: nn.Module, config: ModelConfig, mean: float, std: float) -> list[str]:
    """Set a new network's normalisation, and load the pretrained weights that the configuration names.

    Tensor names may be torchvision's or those of this package's checkpoints. A classifier with another number of
    classes keeps its random weights. All other tensors must fit.

    Args:
        model: a network from ``build`` with the same configuration, on the CPU; changed in place.
        config: ``pretrained`` names the weights: None for none; ``imagenet`` for torchvision's, downloaded into
            torch.hub's folder if they are not there; or a .safetensors file, a torch state dict or a checkpoint folder.
        mean: mean of the dataset's training pixels, 0 to 1.
        std: standard deviation of the same pixels.

    Returns:
        The names of the parameters that kept their random weights; empty without pretrained weights.

    Raises:
        UsageError: the architecture has no ImageNet weights, they can't be downloaded, or the path doesn't exist.
        DataError: the file is damaged, or of another network.
    """
    for module in model.modules():
        if isinstance(module, GreyToImageNet):
            module.set_normalization(mean, std)
    if config.pretrained is None:
        return []
    from_imagenet = config.pretrained == "imagenet"
    weights = _imagenet(find(config.name)) if from_imagenet else _read(config.pretrained)
    return _load(without_front(model), config, weights)


def _imagenet(architecture: Architecture) -> Weights:
    if architecture.torchvision is None:
        those = ", ".join(each.name for each in architectures() if each.torchvision)
        raise UsageError(
            f"model.pretrained = 'imagenet': '{architecture.name}' has no ImageNet weights; these have: {those}."
            " Choose one of them, name a checkpoint folder, or set it to null."
        )
    from torchvision.models import get_model_weights  # a slow import that most runs don't need

    origin = get_model_weights(architecture.torchvision).DEFAULT
    file, folder = Path(origin.url).name, Path(torch.hub.get_dir(), "checkpoints")
    try:
        weights: Weights = origin.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # network errors, and whatever the unpickler raises on a damaged file
        raise UsageError(
            f"model.pretrained = 'imagenet': {origin.url} can't be downloaded: {_reason(error)}. Put {file} into"
            f" {folder}, or set model.pretrained=PATH/{file}."
        ) from error
    return weights


def _read(path_or_url: str) -> Weights:
    path = local_copy(path_or_url)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        inside = checkpoint_within(path, WEIGHTS_FILE)
        named = f"Did you mean {path_or_url}/{inside.name}?" if inside else "Name a file or a checkpoint folder."
        what = f"has no {WEIGHTS_FILE}" if path.is_dir() else "no such file or folder"
        raise UsageError(f"model.pretrained = '{path_or_url}': {what}. {named}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler raises on a damaged file
        raise DataError(
            f"model.pretrained = '{path_or_url}': not readable as weights: {_reason(error)}. Name a .safetensors file,"
            " or a state dict saved by torch.save that holds only tensors."
        ) from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        held = _first(map(str, weights)) if isinstance(weights, Mapping) else f"a {type(weights).__name__}"
        raise DataError(
            f"model.pretrained = '{path_or_url}': holds {held}, not tensors by name. Save the network's state_dict()."
        )
    return dict(weights)


def _load(body: nn.Module, config: ModelConfig, weights: Weights) -> list[str]:
    """Load the weights, and return the names of the classifier's parameters if it keeps its random weights."""
    architecture, own = find(config.name), body.state_dict()
    last = f"{architecture.stages[-1][0]}."
    # A checkpoint's front normalises for the dataset that it was trained on.
    others = ("front.", *architecture.unused_weights)
    given = {name.removeprefix("body."): tensor for name, tensor in weights.items() if not name.startswith(others)}
    misfits = dict.fromkeys(given.keys() - own.keys(), "not part of the network")
    for name, tensor in own.items():
        if name not in given:
            misfits[name] = "missing"
        elif tensor.shape != given[name].shape:
            misfits[name] = f"{_shape(given[name])} instead of {_shape(tensor)}"
    fresh = [name for name in own if name.startswith(last)] if any(name.startswith(last) for name in misfits) else []
    # Some of torchvision's files are older than batch norm's counters, which matter only without a momentum.
    wrong = sorted(name for name in misfits if not name.startswith(last) and not name.endswith("num_batches_tracked"))
    if wrong:
        remedy = f"Name weights of a {config.name}."
        stem = tuple(f"{module}." for module in architecture.stages[0])
        if architecture.torchvision and all(name.startswith(stem) for name in wrong):
            other = "small" if has_imagenet_stem(config) else "imagenet"
            remedy = f"Only the first layers differ: these weights were trained with model.stem={other}."
        raise DataError(
            f"model.pretrained = '{config.pretrained}': {len(wrong)} of its tensors don't fit '{config.name}':"
            f" {_first(f'{name} ({misfits[name]})' for name in wrong)}. {remedy}"
        )
    loaded = {name: given[name] for name in own.keys() & given.keys() if name not in fresh}
    if non_finite := sorted(name for name, tensor in loaded.items() if not tensor.isfinite().all()):
        raise DataError(
            f"model.pretrained = '{config.pretrained}': {_first(non_finite)} hold values that are not finite. Name"
            " weights of a run that did not diverge."
        )
    body.load_state_dict(loaded, strict=False)
    return fresh


def _first(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:3]) + (", …" if len(every) > 3 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _reason(error: BaseException) -> str:
    first_line = str(getattr(error, "reason", error)).partition("\n")[0]  # torch adds paragraphs of advice
    return ": ".join(part for part in (type(error).__name__, first_line.partition(". ")[0]) if part)
