"""Checkpoints of untrained networks for tests."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from fer_ray.models import build


def made_checkpoint(
    name: str = "fast",
    seed: int = 0,
    temperature: float = 1.0,
    label_names: Sequence[str] = EMOTIONS,
    mean: float = 0.5,
    std: float = 0.25,
    size: int = 48,
    fingerprint: str = "",
    spread: float = 1.0,
) -> Checkpoint:
    """A network whose logits differ between images, more with a larger ``spread``, in the order of ``label_names``."""
    torch.manual_seed(seed)
    config = Config(model=ModelConfig(name=name))
    model = build(config.model, size).eval()
    *_, kernel, bias = model.parameters()  # of the last layer
    nn.init.normal_(kernel, std=spread)
    order = [EMOTIONS.index(label) if label in EMOTIONS else 0 for label in label_names]
    with torch.no_grad():
        kernel.copy_(kernel[order])
        bias.copy_(bias[order])
    info = CheckpointInfo(
        config=config,
        label_names=tuple(label_names),
        mean=mean,
        std=std,
        size=size,
        epoch=seed,
        metrics={},
        temperature=temperature,
        dataset_fingerprint=fingerprint,
    )
    return Checkpoint(model, info)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(folder, checkpoint.model.state_dict(), checkpoint.info)
    return folder
