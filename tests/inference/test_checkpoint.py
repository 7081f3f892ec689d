"""Checkpoints: what they hold, what a kill leaves, what a wrong one says; and the network of the package."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets_made import read_split
from safetensors.torch import load_file

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.errors import DataError
from fer_ray.inference.checkpoint import CheckpointInfo, load_checkpoint, load_training_state, save_checkpoint
from fer_ray.inference.predictor import Predictor
from fer_ray.models import build
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.storage.inputs import INFO_FILE, INT8_FILE, WEIGHTS_FILE
from fer_ray.weights import SHIPPED_CHECKPOINT

CONFIG = Config(model=ModelConfig(name="fast"))
INFO = CheckpointInfo(config=CONFIG, mean=0.5, std=0.25, size=48, epoch=3, metrics={}, dataset_fingerprint="f")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, build(CONFIG.model, 48).state_dict(), INFO)
    return folder


def test_what_is_written_is_read(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == [INFO_FILE, WEIGHTS_FILE]
    assert " ".join(json.loads((saved / INFO_FILE).read_text())) == (
        "format_version fer_ray_version config label_names mean std size channels epoch metrics temperature"
        " dataset_fingerprint"
    )
    model, images = build(CONFIG.model, 48), torch.randn(2, 1, 48, 48)
    save_checkpoint(saved, model.state_dict(), INFO, {"epoch": 3, "optimizer": {"state": {}}})
    loaded = load_checkpoint(saved)
    assert loaded.info == INFO
    assert torch.equal(loaded.model(images), model.eval()(images))
    assert load_training_state(saved)["epoch"] == 3


def test_a_kill_between_the_renames_is_undone(saved: Path) -> None:
    saved.rename(saved.with_name(".checkpoint.old"))
    assert load_checkpoint(saved).info == INFO


def of_another_network(folder: Path) -> None:
    info = json.loads((folder / INFO_FILE).read_text())
    info["config"]["model"]["name"] = "cnn3"
    (folder / INFO_FILE).write_text(json.dumps(info))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS_FILE).unlink(), r"no model\.safetensors"),
    "torn weights": (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\x00" * 1000), "damaged"),
    "other weights": (of_another_network, "don't fit 'cnn3'"),
    "empty": (lambda folder: (folder / INFO_FILE).write_text(""), r"checkpoint.json: can't be read"),
    "no fields": (lambda folder: (folder / INFO_FILE).write_text("{}"), r"checkpoint.json: invalid"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints(damage: str, saved: Path) -> None:
    change, message = DAMAGES[damage]
    change(saved)
    with pytest.raises(DataError, match=message):
        load_checkpoint(saved)


def test_the_shipped_network_is_small_and_as_accurate_as_its_card_says(fer2013_zip: Path) -> None:
    file = SHIPPED_CHECKPOINT / WEIGHTS_FILE
    assert file.stat().st_size <= 12_000_000
    assert {str(one.dtype) for one in load_file(file).values() if one.is_floating_point()} == {"torch.float16"}
    card = (SHIPPED_CHECKPOINT / CARD_FILE).read_text(encoding="utf-8")
    said = re.findall(r"^\| none \|.*?\| (\d\d\.\d\d)%", card, re.MULTILINE)
    with zipfile.ZipFile(fer2013_zip) as archive:
        faces = read_split(archive, "PublicTest")
    assert (SHIPPED_CHECKPOINT / INT8_FILE).stat().st_size <= 1_200_000
    for precision, accuracy in zip(("float32", "int8"), said, strict=True):
        predicted = Predictor(SHIPPED_CHECKPOINT, precision=precision).predict(faces.images).labels
        assert abs(100 * (predicted == faces.labels).mean() - float(accuracy)) < 0.1  # other processors round otherwise
