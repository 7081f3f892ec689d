"""The findings of a model card follow from the metrics: what is said, with which numbers, and what is left out."""

import re
from typing import Any

import numpy as np
from datasets_made import dataset_info

from fer_ray.config.files import load_config
from fer_ray.dataset.store import SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.calibration import reliability_bins
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, Member, Paired, TtaScores, compare, score_predictions
from fer_ray.reporting.model_card import model_card
from fer_ray.storage.provenance import this_start

ANGRY, DISGUST, FEAR, HAPPY, SAD = range(5)
LABELS = np.repeat(np.arange(7), 20)
CLEAN = {
    name: SplitInfo(rows=7 * count, labels=dict.fromkeys(EMOTIONS, count))
    for name, count in {"train": 100, "validation": 20, "test": 20}.items()
}
UNSURE = Paired(only_first_right=1, only_second_right=2, mcnemar_p=1.0)
SURE = Paired(only_first_right=0, only_second_right=8, mcnemar_p=0.0078)


def trained(fingerprint: str = "own", *overrides: str) -> CheckpointInfo:
    config = load_config(None, overrides)
    fixed: dict[str, Any] = {"mean": 0.5, "std": 0.25, "size": 48, "epoch": 1, "metrics": {}}
    return CheckpointInfo(config=config, dataset_fingerprint=fingerprint, **fixed)


def card_of(
    labels: np.ndarray,
    tta: dict[str, np.ndarray],
    *,
    confidence: float | np.ndarray = 0.99,
    leaked: np.ndarray | None = None,
    split: str = "test",
    splits: dict[str, SplitInfo] = CLEAN,
    info: CheckpointInfo | None = None,
    members: tuple[dict[str, Any], ...] = ({},),
) -> str:
    """Return the card of an evaluation; ``tta`` gives predicted labels, the main ones last, and ``members`` the fields
    of each network that differ from the defaults."""
    copies = np.zeros(len(labels), dtype=bool) if leaked is None else leaked
    first, *_ = tta
    measured = {}
    for name, predicted in tta.items():
        right = np.broadcast_to(confidence, len(labels))[:, None]
        probabilities = np.where(np.eye(7)[predicted] == 1, right, (1 - right) / 6)
        official = score_predictions(labels, probabilities)
        measured[name] = TtaScores(
            official=official,
            without_leaked=None if copies.all() else score_predictions(labels[~copies], probabilities[~copies]),
            images_per_s=1000 if name == first else 500,
            views=1 if name == first else 2,
            ece_uncalibrated=official.ece,
            reliability=reliability_bins(labels, probabilities),
            against_fewest=None if name == first else compare(labels, predicted, tta[first]),
        )
    fields = {"checkpoint": "c", "architecture": "cnn3", "parameters": 1, "epoch": 2, "temperature": 1.0}
    networks = [Member(**fields | {"accuracy": 0.9, "nll": 1.0} | one) for one in members]  # type: ignore[arg-type]
    pair = {"first": 0, "second": 1, "disagreement": 0.1, **UNSURE.model_dump()}
    fixed = {"fer_ray_version": "1", "dataset": "fer-data", "dataset_fingerprint": "own", "device": "cpu"}
    rows = {"split": split, "rows": len(labels), "leaked_rows": int(copies.sum()), "label_names": list(EMOTIONS)}
    found = {"members": networks, "pairs": [pair] * (len(networks) > 1), "main_tta": list(tta)[-1], "tta": measured}
    evaluation = Evaluation.model_validate({"precision": "float32"} | fixed | rows | found)
    dataset = dataset_info(splits, fingerprint="own")
    return model_card(evaluation, dataset, [info or trained()] * len(networks), "a|b", this_start())


def text_of(*args: Any, **options: Any) -> str:
    """Return the findings of a card, each after its heading; arguments as of ``card_of``."""
    sections = re.findall(r"^### (\w+)\n\n(.*?)\n\n(?=#)", card_of(*args, **options), re.MULTILINE | re.DOTALL)
    return "\n".join(
        f"{heading}: {line}" for heading, text in sections for line in re.findall("^- (.*)", text, re.MULTILINE)
    )


def mistaken(*mistakes: tuple[int, int, int]) -> np.ndarray:
    """Return correct predictions for ``LABELS`` except for (label, predicted, images)."""
    predicted = LABELS.copy()
    for label, other, count in mistakes:
        predicted[label * 20 : label * 20 + count] = other
    return predicted


FEAR_MISSED = {"none": mistaken((FEAR, SAD, 20))}


def test_a_perfect_classifier_and_one_at_chance() -> None:
    accuracy, classes, calibration, copies = text_of(LABELS, {"none": LABELS}).splitlines()
    assert "Strengths: 100.0% of 140 images" in accuracy and "95% interval 97.3% to 100.0%" in accuracy
    assert "for 7 of 7 classes: angry (1.00), " in classes and "differs from accuracy by 1 point" in calibration
    assert "None of the 140 images is an exact copy" in copies
    predicted = np.random.default_rng(0).integers(0, 7, 140)
    text = text_of(LABELS, {"none": predicted}, confidence=0.9)
    assert f"Weaknesses: {(predicted == LABELS).mean():.1%} of 140 images" in text and "would reach 14.3%, so" in text
    assert "Confidence is not reliable: its mean, 90.0%, is higher" in text


def test_a_handful_of_images_says_nothing_about_classes_calibration_and_views() -> None:
    labels = np.repeat(np.arange(7), 2)
    predicted = np.where(np.arange(14) < 5, HAPPY, labels)
    few = text_of(labels, {"none": labels, "flip": predicted}, confidence=0.8)
    assert all(line.startswith("Strengths: ") for line in few.splitlines())
    many = text_of(np.tile(labels, 100), {"none": np.tile(predicted, 100)}, confidence=0.8)
    assert "not reliable: its mean, 80.0%" in many and "Most images of" in many


def test_views_that_help_and_views_that_do_not() -> None:
    worse, better = mistaken((FEAR, SAD, 20), (SAD, FEAR, 20)), mistaken((FEAR, SAD, 6))
    gain = text_of(LABELS, {"none": worse, "flip": better})
    assert "TTA flip raises the accuracy of none: 95.7% instead of 71.4% (McNemar's p 1.2e-10). It takes 2.0" in gain
    assert "TTA flip doesn't raise the accuracy" in text_of(LABELS, {"none": better, "flip": worse})
    assert "TTA" not in text_of(LABELS, {"flip": better})


def test_copies_of_training_images() -> None:
    """40 correct copies among 140 images with 20 mistakes: 85.7% with them, 80% without."""
    leaked = np.isin(LABELS, (HAPPY, SAD))
    raised = text_of(LABELS, FEAR_MISSED, leaked=leaked)
    assert "Exact copies of training images (40 of 140, 28.6%) raise the accuracy by 5.7 points" in raised
    assert "without them it is 80.0% (95% interval 71.1% to 86.7%)" in raised
    assert "hardly change the accuracy" in text_of(LABELS, {"none": LABELS}, leaked=leaked)
    assert "Every image is an exact copy" in text_of(LABELS, {"none": LABELS}, leaked=np.ones(140, dtype=bool))
    text = text_of(LABELS, FEAR_MISSED, leaked=leaked, info=trained("another"))
    assert "Exact copies" not in text and "The network was trained on another dataset: copies of its" in text


def test_rare_classes_and_class_weights_only_where_there_are_none() -> None:
    labels = np.concatenate([LABELS, np.full(400, HAPPY)])
    predicted = {"none": np.where(labels == DISGUST, ANGRY, labels)}
    text = text_of(labels, predicted)
    assert "but 85.7% if every class counts the same" in text and "loss.class_weight_power 0)" in text
    weighted = trained("own", "loss.class_weight_power=0.5")
    assert "class_weight_power" not in text_of(labels, predicted, info=weighted)


def test_fer2013() -> None:
    rows = {"train": (3995, 436, 4097, 7215, 4830, 3171, 4965), "validation": (467, 56, 496, 895, 653, 415, 607)}
    splits = {}
    for name, counts in rows.items():
        labels = dict(zip(EMOTIONS, counts, strict=True))
        splits[name] = SplitInfo(rows=sum(counts), labels=labels, conflicts=15, near_leaked=359)
    text = text_of(LABELS, FEAR_MISSED, split="validation", splits=splits)
    assert "(Goodfellow et al. 2013, arXiv 1307.0414). An accuracy near or above that measures agreement" in text
    assert "Some images of train occur with different labels, of which at most one can be right: 15." in text
    assert "The validation images also chose the epoch" in text
    assert "nearly equal to a training image (359 of 3,589, 10.0%)" in text
    low = text_of(LABELS, {"none": np.full(140, HAPPY)}, split="validation", splits=splits)
    assert "50.7 points more than this network" in low
    assert "Goodfellow" not in text_of(LABELS, FEAR_MISSED)


def test_confident_predictions() -> None:
    """Of 140 predictions at one confidence, 86% are right; of 70 at a higher one, all are."""
    assert "people can label the rest" not in text_of(LABELS, FEAR_MISSED, confidence=0.7)
    text = text_of(LABELS, FEAR_MISSED, confidence=np.where(LABELS > HAPPY - 1, 0.99, 0.7))
    assert "confidence above 0.93 are right in 100.0% of cases (95% interval 95.4% to 100.0%). They are 57.1%" in text


def test_networks_of_no_use_and_how_certain_that_is() -> None:
    members = tuple({"share": share, "against_all": SURE, "against_others": UNSURE} for share in (-1 / 140, 0.0))
    text = text_of(LABELS, {"none": mistaken((FEAR, SAD, 6))}, members=members)
    left_out = "Network 1 (cnn3) can be left out: without it the accuracy is 0.7 points higher"
    assert f"{left_out} (McNemar's p 1: such a small difference may be chance)." in text
    assert "Network 2 (" not in text  # not both at once
    assert "2 networks together are 5.7 points more accurate than the best of them alone (McNemar's p 0.0078)." in text


def test_a_card_is_markdown_and_tells_the_training_dataset_from_the_evaluated_one() -> None:
    for fingerprint, said in (("another", "on another dataset, with"), ("own", "on the train split of that")):
        card = card_of(LABELS, {"none": LABELS}, info=trained(fingerprint))
        assert card.startswith("# Model card: cnn3 for facial expressions (a\\|b)\n\n## Model details\n")
        training = card.split("\n## Training data\n")[1].split("\n## ")[0]
        assert said in training and "\n\n    model:\n" in training
        assert "Source: made (made)" in card and "| all images | 700 | 140 |" in card
        assert "\n\n\n" not in card
