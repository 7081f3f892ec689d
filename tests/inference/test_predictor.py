"""Prediction: test-time augmentation against a plain recipe, label orders, calibration, ensembles, wrong inputs."""

from collections.abc import Sequence
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints_made import FACES, made_checkpoint, write_checkpoint
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import Checkpoint
from fer_ray.inference.device import LAYOUT
from fer_ray.inference.network import Network, normalize
from fer_ray.inference.predictor import Predictions, Predictor, load_members
from fer_ray.inference.scores import compare_members, measure_members
from fer_ray.inference.tta import UNSURE

IMAGES = FACES[:9]
MEMBERS = [
    made_checkpoint("fast", 1, temperature=2.0),
    made_checkpoint("cnn3", 2, sorted(EMOTIONS), temperature=0.5, mean=0.4),
    made_checkpoint("fast", 3),
]


def five_crops(image_chw: torch.Tensor) -> list[torch.Tensor]:
    crops = TF.five_crop(image_chw, [44, 44])
    return [F.interpolate(crop[None], (48, 48), mode="bilinear", align_corners=False)[0] for crop in crops]


def views_by_hand(name: str, image_chw: torch.Tensor) -> list[torch.Tensor]:
    """Make the views of one image by torchvision."""
    views = {"none": [image_chw], "flip": [image_chw], "ten_crop": five_crops(image_chw), "full": []}[name]
    if name == "full":
        for degrees in (-6.0, 0.0, 6.0):
            turned = TF.rotate(image_chw, degrees, InterpolationMode.BILINEAR)
            views += [turned, *five_crops(turned)]
    return views if name == "none" else [*views, *(TF.hflip(view) for view in views)]


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("flip", 2), ("ten_crop", 10), ("full", 36)])
def test_probabilities_and_spread_equal_a_plain_recipe(name: str, count: int) -> None:
    member = made_checkpoint("cnn3", temperature=0.3)
    predictions = Predictor(member, tta=name, precision="float32", batch_size=2).predict(IMAGES[:3])
    assert set(predictions.views) == {count}
    for number, image in enumerate(IMAGES[:3]):
        views = torch.stack(views_by_hand(name, (torch.from_numpy(image).float()[None] / 255 - 0.5) / 0.25))
        with torch.inference_mode():
            probabilities = (member.model(views) / 0.3).softmax(1).numpy()
        np.testing.assert_allclose(predictions.probabilities[number], probabilities.mean(0), atol=1e-5)
        spread = probabilities[:, predictions.labels[number]].std()
        assert predictions.tta_std[number] == pytest.approx(spread, abs=1e-5)


def test_adaptive_looks_again_where_it_is_unsure() -> None:
    one = made_checkpoint("cnn3", temperature=0.3)
    adaptive, none, flip, ten_crop = (
        Predictor(one, tta=tta, precision="float32").predict(FACES) for tta in ("adaptive", "none", "flip", "ten_crop")
    )
    highest = np.sort(none.probabilities, axis=1)
    unsure = highest[:, -1] - highest[:, -2] < UNSURE
    assert 5 < unsure.sum() < 55
    assert (adaptive.views == np.where(unsure, 12, 1)).all()
    every = (2 * flip.probabilities + 10 * ten_crop.probabilities) / 12
    np.testing.assert_allclose(adaptive.probabilities, np.where(unsure[:, None], every, none.probabilities), atol=1e-5)
    assert (adaptive.tta_std > 0).tolist() == unsure.tolist()
    sure = Predictor(one, tta="adaptive", precision="float32").predict(FACES[~unsure])
    assert set(sure.views) == {1}


def test_order_of_labels_changes_nothing() -> None:
    one, other = (
        Predictor(made_checkpoint(label_names=names), precision="float32").predict(FACES)
        for names in (EMOTIONS, sorted(EMOTIONS))
    )
    assert len(set(one.labels)) > 2 and one.names == other.names
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_bfloat16_is_what_autocast_computes() -> None:
    one = made_checkpoint()
    found = Network(one, "bfloat16").logits(IMAGES)[0]
    pixels = normalize(torch.from_numpy(IMAGES), 0.5, 0.25).contiguous(memory_format=LAYOUT)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(found, one.model.to(memory_format=LAYOUT)(pixels).float())
    assert {weight.dtype for weight in one.model.parameters()} == {torch.float32}  # the checkpoint's own stay


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_an_ensemble_is_the_mean_of_calibrated_probabilities(tta: str) -> None:
    predictions = Predictor(MEMBERS, tta, "float32").predict(IMAGES)
    alone = [Predictor(one, tta, "float32").predict(IMAGES).probabilities for one in MEMBERS]
    np.testing.assert_allclose(predictions.members, alone, atol=1e-6)
    np.testing.assert_allclose(predictions.probabilities, np.mean(alone, axis=0), atol=1e-6)
    plain = [Checkpoint(one.model, one.info.model_copy(update={"temperature": 1.0})) for one in MEMBERS]
    expected = Predictor(plain, tta, "float32").predict(IMAGES).probabilities
    np.testing.assert_allclose(predictions.uncalibrated, expected, atol=1e-6)
    assert np.abs(predictions.uncalibrated - predictions.probabilities).max() > 0.01


def test_wrong_calls() -> None:
    predictor = Predictor(made_checkpoint())
    assert predictor.predict(IMAGES[:0]).probabilities.shape == (0, 7)
    for images in (IMAGES.astype(np.float32), IMAGES[:, :40], IMAGES[0]):
        with pytest.raises(UsageError, match="uint8, n × 48 × 48"):
            predictor.predict(images)
    with pytest.raises(UsageError, match="none, flip"):
        Predictor(made_checkpoint(), tta="twelve_crop")
    with pytest.raises(UsageError, match="auto, float32, bfloat16"):
        Predictor(made_checkpoint(), precision="half")


def test_all_wrong_members_are_named_at_once(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path / "good", MEMBERS[0])
    small = write_checkpoint(tmp_path / "small", made_checkpoint(size=24))
    bored = write_checkpoint(tmp_path / "bored", made_checkpoint(label_names=(*EMOTIONS[:6], "bored")))
    with pytest.raises(DataError) as error:
        load_members([small, good, tmp_path / "none", bored], 48)
    of_size, missing, labels = error.value.problems
    assert f"{small}: expects images of 24 pixels, the dataset has 48" in of_size
    assert f"{tmp_path / 'none'}: not a checkpoint" in missing
    assert str(bored) in labels and "in any order" in labels
    with pytest.raises(UsageError, match="named twice"):
        load_members([good, small, good], 48)
    with pytest.raises(DataError, match=f"{small}: expects images of 24 pixels, the first checkpoint 48"):
        load_members([good, small])


def sure_of(labels: Sequence[int], confidence: float) -> np.ndarray:
    rest = (1 - confidence) / 6
    return np.full((len(labels), 7), rest) + np.eye(7)[list(labels)] * (confidence - rest)


def test_share_is_what_the_others_lose_without_a_member() -> None:
    labels = np.array([0, 1, 2, 3])
    probabilities = np.stack([sure_of([0, 1, 2, 3], 0.9), sure_of([0, 1, 6, 6], 0.45), sure_of([0, 6, 6, 6], 0.4)])
    predictions = Predictions(probabilities.mean(0), np.zeros(4), np.ones(4, int), probabilities, probabilities[0])
    first, second, third = measure_members(["a", "b", "c"], MEMBERS, labels, predictions)
    # All together are right four times, and so without the second or the third; without the first one, twice.
    assert [first.share, second.share, third.share] == pytest.approx([0.5, 0, 0])
    assert [first.accuracy, second.accuracy, third.accuracy] == [1, 0.5, 0.25]
    assert first.nll == pytest.approx(-np.log(0.9))
    assert (second.checkpoint, second.architecture, second.epoch, second.temperature) == ("b", "cnn3", 2, 0.5)
    assert second.parameters == sum(one.numel() for one in MEMBERS[1].model.parameters())


def test_pairs() -> None:
    labels = np.zeros(20, int)
    first, second = np.zeros(20, int), np.zeros(20, int)
    first[:2] = 1  # wrong twice where the second is right
    second[2:10] = 1  # wrong eight times where the first is right
    first[10:13], second[10:13] = 1, 2  # both wrong, differently
    first[13:15], second[13:15] = 1, 1
    pair, same, _ = compare_members(labels, np.stack([first, second, first]))
    assert (pair.first, pair.second, same.first, same.second) == (0, 1, 0, 2)
    assert pair.disagreement == pytest.approx(13 / 20)
    assert (pair.only_first_right, pair.only_second_right) == (8, 2)
    assert pair.mcnemar_p == pytest.approx(2 * sum(comb(10, k) for k in range(3)) / 2**10)
    assert (same.disagreement, same.mcnemar_p) == (0, 1)
