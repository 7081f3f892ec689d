"""Ensembles: the mean of calibrated probabilities, each member's share, each two members compared."""

from collections.abc import Sequence
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from fer_ray.inference.predictor import Predictions, Predictor, load_members
from fer_ray.inference.scores import compare_members, measure_members
from fer_ray.models import build

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8)
ALPHABETICAL = tuple(sorted(EMOTIONS))


def member(
    name: str, seed: int, temperature: float, names: Sequence[str] = EMOTIONS, mean: float = 0.5, size: int = 48
) -> Checkpoint:
    torch.manual_seed(seed)
    config = Config(model=ModelConfig(name=name))
    model = build(config.model, size).eval()
    nn.init.normal_(list(model.parameters())[-2])  # spread the logits
    info = CheckpointInfo(
        config=config,
        label_names=tuple(names),
        mean=mean,
        std=0.25,
        size=size,
        epoch=seed,
        metrics={},
        temperature=temperature,
        dataset_fingerprint="",
    )
    return Checkpoint(model, info)


MEMBERS = [member("fast", 1, 2.0), member("cnn3", 2, 0.5, ALPHABETICAL, 0.4), member("fast", 3, 1.0)]


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_mean_of_calibrated_probabilities_in_one_order_of_labels(tta: str) -> None:
    predictions = Predictor(MEMBERS, tta, "float32").predict(IMAGES)
    alone = [Predictor(one, tta, "float32").predict(IMAGES).probabilities for one in MEMBERS]
    np.testing.assert_allclose(predictions.members, alone, atol=1e-6)
    np.testing.assert_allclose(predictions.probabilities, np.mean(alone, axis=0), atol=1e-6)
    assert set(predictions.views) == {1 if tta == "none" else 2}
    assert predictions.tta_std.any() == (tta == "flip")


def test_uncalibrated_is_every_temperature_one() -> None:
    plain = [Checkpoint(one.model, one.info.model_copy(update={"temperature": 1.0})) for one in MEMBERS]
    calibrated, expected = (Predictor(members, "flip", "float32").predict(IMAGES) for members in (MEMBERS, plain))
    np.testing.assert_allclose(calibrated.uncalibrated, expected.probabilities, atol=1e-6)
    assert np.abs(calibrated.uncalibrated - calibrated.probabilities).max() > 0.01


def sure_of(labels: Sequence[int], confidence: float) -> np.ndarray:
    rest = (1 - confidence) / 6
    return np.full((len(labels), 7), rest) + np.eye(7)[list(labels)] * (confidence - rest)


def test_share_is_what_the_others_lose_without_a_member() -> None:
    labels = np.array([0, 1, 2, 3])
    probabilities = np.stack([sure_of([0, 1, 2, 3], 0.9), sure_of([0, 1, 6, 6], 0.45), sure_of([0, 6, 6, 6], 0.4)])
    mean, nothing, once = probabilities.mean(0), np.zeros(4), np.ones(4, int)
    predictions = Predictions(mean, nothing, once, probabilities, probabilities[0])
    names = ["a", "b", "c"]
    first, second, third = measure_members(names, MEMBERS, labels, predictions)
    # All together are right four times, and so without the second or the third; without the first one, twice.
    assert [first.share, second.share, third.share] == pytest.approx([0.5, 0, 0])
    assert [first.accuracy, second.accuracy, third.accuracy] == [1, 0.5, 0.25]
    assert first.nll == pytest.approx(-np.log(0.9))
    assert (second.checkpoint, second.architecture, second.epoch, second.temperature) == ("b", "cnn3", 2, 0.5)
    assert second.parameters == sum(one.numel() for one in MEMBERS[1].model.parameters())

    alone = Predictions(mean, nothing, once, probabilities[:1], probabilities[0])
    assert measure_members(names[:1], MEMBERS[:1], labels, alone)[0].share is None


def test_pairs() -> None:
    labels = np.zeros(20, int)
    first, second = np.zeros(20, int), np.zeros(20, int)
    first[:2] = 1  # wrong twice where the second is right
    second[2:10] = 1  # wrong eight times where the first is right
    first[10:13], second[10:13] = 1, 2  # both wrong, differently
    first[13:15], second[13:15] = 1, 1
    (pair,) = compare_members(labels, np.stack([first, second]))
    assert (pair.first, pair.second) == (0, 1)
    assert pair.disagreement == pytest.approx(13 / 20)
    assert (pair.only_first_right, pair.only_second_right) == (8, 2)
    assert pair.mcnemar_p == pytest.approx(2 * sum(comb(10, k) for k in range(3)) / 2**10)

    pairs = compare_members(labels, np.stack([first, second, first]))
    assert [(one.first, one.second) for one in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert (pairs[1].disagreement, pairs[1].mcnemar_p) == (0, 1)


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(folder, checkpoint.model.state_dict(), checkpoint.info)
    return folder


def test_all_wrong_members_are_named_at_once(tmp_path: Path) -> None:
    good = write(tmp_path / "good", MEMBERS[0])
    small = write(tmp_path / "small", member("fast", 0, 1.0, size=24))
    bored = write(tmp_path / "bored", member("fast", 0, 1.0, (*EMOTIONS[:6], "bored")))
    assert [one.info.epoch for one in load_members([good], 48)] == [1]
    with pytest.raises(DataError) as error:
        load_members([small, good, tmp_path / "none", bored], 48)
    of_size, missing, labels = error.value.problems
    assert (
        f"{small}: expects images of 24 pixels, the dataset has 48" in of_size and "leave the checkpoint out" in of_size
    )
    assert f"{tmp_path / 'none'}: not a checkpoint" in missing
    assert str(bored) in labels and "in any order" in labels
    with pytest.raises(UsageError, match="named twice"):
        load_members([good, small, good], 48)
    assert [one.info.size for one in load_members([small])] == [24]
    with pytest.raises(DataError, match=f"{small}: expects images of 24 pixels, the first checkpoint 48"):
        load_members([good, small])
