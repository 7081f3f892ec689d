"""Checkpoints of untrained networks for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from fer_ray.inference.network import normalize
from fer_ray.models import build
from fer_ray.sources.synthetic import synthetic_faces

FACES = synthetic_faces(60, seed=1)[0]
"""Drawn faces of 48 × 48 pixels."""


def made_checkpoint(
    name: str = "fast", seed: int = 0, label_names: Sequence[str] = EMOTIONS, size: int = 48, **fields: Any
) -> Checkpoint:
    """A network that predicts various labels for drawn faces on every machine: each logit has mean 0, all have SD 1."""
    of = {"mean": 0.5, "std": 0.25, "epoch": seed, "metrics": {}, "dataset_fingerprint": ""} | fields
    torch.manual_seed(seed)
    config = Config(model=ModelConfig(name=name))
    model = build(config.model, size).eval()
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    faces = F.interpolate(normalize(torch.from_numpy(FACES), of["mean"], of["std"]), size=(size, size), mode="area")
    features = list[torch.Tensor]()
    hook = last.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    with torch.no_grad():
        model(faces)
        hook.remove()
        last.weight.normal_()
        last.bias.copy_(-last.weight @ features[0].mean(0))
        scale = 1 / model(faces).std()
        order = [EMOTIONS.index(label) if label in EMOTIONS else 0 for label in label_names]
        last.weight.copy_(scale * last.weight[order])
        last.bias.copy_(scale * last.bias[order])
    return Checkpoint(model, CheckpointInfo(config=config, label_names=tuple(label_names), size=size, **of))


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(folder, checkpoint.model.state_dict(), checkpoint.info)
    return folder
