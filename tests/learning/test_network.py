"""A checkpoint ready to compute."""

import numpy as np
import pytest
import torch
from torch import nn

from fer_ray.config import Config, ModelConfig
from fer_ray.learning.checkpoint import Checkpoint, CheckpointInfo
from fer_ray.learning.network import Network
from fer_ray.models import build
from fer_ray.models.registry import architectures

BARE = [ModelConfig(name=one.name) for one in architectures()]
WITH_STEM = [ModelConfig(name=one.name, stem="imagenet", input_size=64) for one in architectures() if one.torchvision]


@pytest.mark.parametrize("config", BARE + WITH_STEM, ids=lambda config: f"{config.name}-{config.stem}")
def test_batch_norm_becomes_part_of_the_convolutions(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = build(config, 48).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    info = CheckpointInfo(
        config=Config(model=config),
        mean=0.5,
        std=0.25,
        size=48,
        epoch=1,
        metrics={},
        temperature=1.0,
        dataset_fingerprint="",
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48), dtype=np.uint8)
    with torch.inference_mode():
        expected = model((torch.from_numpy(images).unsqueeze(1) / 255 - 0.5) / 0.25)
    before = sum(isinstance(one, nn.BatchNorm2d) for one in model.modules())
    network = Network(Checkpoint(model, info), "float32")
    found = network.logits(images)[0]
    assert (found - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    assert sum(isinstance(one, nn.BatchNorm2d) for one in model.modules()) == before  # the checkpoint's own stays
    after = sum(isinstance(one, nn.BatchNorm2d) for one in network._model.modules())
    assert after < before or not before
