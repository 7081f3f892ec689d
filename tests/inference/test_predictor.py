"""Prediction and test-time augmentation."""

import numpy as np
import pytest
import torch
from checkpoints_made import made_checkpoint

from fer_ray.emotions import EMOTIONS, csv_order
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.device import LAYOUT
from fer_ray.inference.network import normalize
from fer_ray.inference.predictor import Predictor
from fer_ray.inference.tta import UNSURE

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 48, 48), dtype=np.uint8)


def by_hand(images: np.ndarray, temperature: float = 1.0) -> torch.Tensor:
    pixels = (torch.from_numpy(images).float().unsqueeze(1) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        return (made_checkpoint().model(pixels) / temperature).softmax(1)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_probabilities(temperature: float) -> None:
    checkpoint = made_checkpoint(temperature=temperature)
    predictions = Predictor(checkpoint, precision="float32", batch_size=4).predict(IMAGES)
    np.testing.assert_allclose(predictions.probabilities, by_hand(IMAGES, temperature), atol=1e-5)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
    assert not predictions.tta_std.any()


def test_order_of_labels_changes_nothing() -> None:
    one, other = (
        Predictor(made_checkpoint(label_names=names)).predict(IMAGES) for names in (EMOTIONS, sorted(EMOTIONS))
    )
    assert len(set(one.labels)) > 2 and one.names == other.names
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_no_images() -> None:
    assert Predictor(made_checkpoint()).predict(IMAGES[:0]).probabilities.shape == (0, 7)


@pytest.mark.parametrize("nothing", [None, 5, [None]])
def test_what_is_no_picture_is_refused(nothing: object) -> None:
    with pytest.raises(DataError, match=r"image 0: .* of shape \(\): expected a path"):
        Predictor(made_checkpoint()).predict(nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [IMAGES.astype(np.float32), IMAGES[:, :40], IMAGES[0]])
def test_other_shapes_are_refused(images: np.ndarray) -> None:
    with pytest.raises(UsageError, match="uint8, n × 48 × 48"):
        Predictor(made_checkpoint()).predict(images)


def test_unknown_tta_and_precision() -> None:
    with pytest.raises(UsageError, match="none, flip"):
        Predictor(made_checkpoint(), tta="twelve_crop")
    with pytest.raises(UsageError, match="auto, float32 or bfloat16"):
        Predictor(made_checkpoint(), precision="half")


def test_adaptive_looks_again_where_it_is_unsure() -> None:
    one = made_checkpoint(temperature=0.05)
    images = np.random.default_rng(1).integers(0, 256, (60, 48, 48), dtype=np.uint8)
    adaptive, none, flip, ten_crop = (
        Predictor(one, tta=tta, precision="float32").predict(images) for tta in ("adaptive", "none", "flip", "ten_crop")
    )
    highest = np.sort(none.probabilities, axis=1)
    unsure = highest[:, -1] - highest[:, -2] < UNSURE
    assert 5 < unsure.sum() < 55
    assert (adaptive.views == np.where(unsure, 12, 1)).all()
    every = (2 * flip.probabilities + 10 * ten_crop.probabilities) / 12
    np.testing.assert_allclose(adaptive.probabilities, np.where(unsure[:, None], every, none.probabilities), atol=1e-5)
    assert (adaptive.tta_std > 0).tolist() == unsure.tolist()
    np.testing.assert_allclose(adaptive.members[0], adaptive.probabilities, atol=1e-6)
    sure = Predictor(one, tta="adaptive", precision="float32").predict(images[~unsure])
    assert set(sure.views) == {1}


def test_bfloat16_is_what_autocast_computes() -> None:
    one = made_checkpoint()
    found = Predictor(one, "none", "bfloat16").logits(IMAGES)[0][0]
    pixels = normalize(torch.from_numpy(IMAGES), 0.5, 0.25).contiguous(memory_format=LAYOUT)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = one.model.to(memory_format=LAYOUT)(pixels).float()
    assert torch.equal(found, expected[:, csv_order(one.info.label_names)])
    assert {weight.dtype for weight in one.model.parameters()} == {torch.float32}  # the checkpoint's own stay
