"""Checkpoints: what they hold, and what a wrong one says."""

import json
from pathlib import Path

import pytest
import torch

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.inference.checkpoint import CheckpointInfo, load_checkpoint, load_training_state, save_checkpoint
from fer_ray.models import build
from fer_ray.storage.local import whole_folder

CONFIG = Config(model=ModelConfig(name="fast"))
INFO = CheckpointInfo(config=CONFIG, mean=0.5, std=0.25, size=48, epoch=3, metrics={}, dataset_fingerprint="f")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, build(CONFIG.model, 48).state_dict(), INFO)
    return folder


def test_file_set(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["checkpoint.json", "model.safetensors"]
    info = json.loads((saved / "checkpoint.json").read_text())
    assert list(info) == [
        "format_version",
        "fer_ray_version",
        "config",
        "label_names",
        "mean",
        "std",
        "size",
        "channels",
        "epoch",
        "metrics",
        "temperature",
        "dataset_fingerprint",
    ]
    assert info["label_names"] == list(EMOTIONS)


def test_round_trip(saved: Path) -> None:
    model = build(CONFIG.model, 48)
    save_checkpoint(saved, model.state_dict(), INFO, {"epoch": 3, "optimizer": {"state": {}}})
    loaded = load_checkpoint(saved)
    images = torch.randn(2, 1, 48, 48)
    assert loaded.info == INFO
    assert torch.equal(loaded.model(images), model.eval()(images))
    assert load_training_state(saved)["epoch"] == 3


def test_a_failed_write_leaves_the_former_checkpoint(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt), whole_folder(saved, replace=True) as partial:
        (partial / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]


def test_a_kill_between_the_renames_is_undone(saved: Path) -> None:
    saved.rename(saved.with_name(".checkpoint.old"))
    assert load_checkpoint(saved).info == INFO


def test_missing_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no model\.safetensors"):
        load_checkpoint(saved)


def test_run_folder_instead_of_its_checkpoint(saved: Path) -> None:
    with pytest.raises(DataError, match=f"Did you mean {saved}"):
        load_checkpoint(saved.parent)


def test_weights_of_another_network(saved: Path) -> None:
    info = json.loads((saved / "checkpoint.json").read_text())
    info["config"]["model"]["name"] = "cnn3"
    (saved / "checkpoint.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="don't fit 'cnn3'"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", ["", "{}", '{"weights": 3}', "not json"])
def test_other_json(saved: Path, content: str) -> None:
    (saved / "checkpoint.json").write_text(content)
    with pytest.raises(DataError, match=r"checkpoint.json: (can't be read|invalid)"):
        load_checkpoint(saved)


def test_damaged_weights(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged"):
        load_checkpoint(saved)
