"""The sentences of a model card follow the figures: what is said, with which numbers, and what is left unsaid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from made_up import describe_dataset, describe_training, make_evidence

from fer_ray.config.files import load_config
from fer_ray.dataset.store import SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.scores import Paired, wilson_interval
from fer_ray.reporting.card_facts import Evidence
from fer_ray.reporting.model_card import RULES, card_text, swot

ANGRY, DISGUST, FEAR, HAPPY, SAD = range(5)
LABELS = np.repeat(np.arange(7), 20)


def mistaken(*mistakes: tuple[int, int, int]) -> np.ndarray:
    """Return predictions that are right but for (label, predicted, images)."""
    predicted = LABELS.copy()
    taken = dict.fromkeys(range(7), 0)
    for label, other, count in mistakes:
        first = label * 20 + taken[label]
        predicted[first : first + count] = other
        taken[label] += count
    return predicted


def said(evidence: Evidence) -> str:
    return "\n".join(line for lines in swot(evidence).values() for line in lines)


def test_a_perfect_classifier() -> None:
    evidence = make_evidence(LABELS, {"none": LABELS}, dataset=describe_dataset())
    found = swot(evidence)
    assert "Not one of 140 images is labelled wrongly" in found["Strengths"][0]
    assert "reaches down to 97.3%" in found["Strengths"][0]
    assert "None of the 140 images is an exact copy of a training image." in found["Strengths"]
    assert found["Weaknesses"] == []
    assert found["Opportunities"] == []
    (chance,) = found["Threats"]
    assert chance.startswith("With 140 images the 95% interval of accuracy goes from 97.3% to 100.0%:")


def test_a_classifier_at_chance() -> None:
    predicted = np.random.default_rng(0).integers(0, 7, 140)
    found = swot(make_evidence(LABELS, {"none": predicted}, confidence=0.9))
    accuracy = (predicted == LABELS).mean()
    assert found["Strengths"] == []
    assert f"would be right for 14.3% of the images; the accuracy of {accuracy:.1%}" in found["Weaknesses"][0]
    assert any(line.startswith("Confidence misleads: its mean, 90.0%, is higher") for line in found["Weaknesses"])
    found_of = {name: int((predicted[label == LABELS] == label).sum()) for label, name in enumerate(EMOTIONS)}
    missed = [name for name, right in found_of.items() if wilson_interval(right, 20)[1] < 0.5]
    assert len(missed) > 3
    assert [line.split(":")[0] for line in found["Weaknesses"] if "most are missed" in line] == missed


def test_one_answer_to_all() -> None:
    text = said(make_evidence(LABELS, {"none": np.full(140, HAPPY)}, confidence=0.15))
    assert "happy is the answer for 140 images and the label of 20: 600% more often than right." in text
    assert "sad: 0 of 20 images found (recall 0.00, 95% interval 0% to 16%)" in text


def test_confusions_come_with_their_counts() -> None:
    evidence = make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 16), (ANGRY, DISGUST, 3), (SAD, FEAR, 1))})
    weak = swot(evidence)["Weaknesses"]
    assert "fear is taken for sad in 16 of 20 images (80.0%)." in weak
    assert "angry is taken for disgust in 3 of 20 images (15.0%)." in weak
    assert not any("sad is taken for fear" in line for line in weak)
    assert any(line.startswith("fear: 4 of 20 images found (recall 0.20") for line in weak)
    assert "sad is the answer for 35 images and the label of 20: 75% more often than right." in weak


def test_two_evaluations_say_different_things() -> None:
    one = make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 12))})
    two = make_evidence(LABELS, {"none": mistaken((HAPPY, ANGRY, 15))})
    assert set(said(one).splitlines()).isdisjoint(set(said(two).splitlines()) - shared_by_rows(one))


def shared_by_rows(evidence: Evidence) -> set[str]:
    """What rests on the number of rows or the confidence alone."""
    rules: tuple[Callable[[Evidence], object], ...] = RULES["Threats"]
    return {line for rule in rules for line in rule(evidence)}


def test_views_that_pay_and_views_that_do_not() -> None:
    worse, better = mistaken((FEAR, SAD, 20), (SAD, FEAR, 20)), mistaken((FEAR, SAD, 6))
    gain = said(make_evidence(LABELS, {"none": worse, "flip": better}))
    assert "TTA flip raises accuracy over none by 24.3 points, to 95.7% (McNemar's p 1.2e-10), and takes 2.0" in gain
    assert "(500 instead of 1,000 images/s)." in gain
    small = said(make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 7)), "flip": better}))
    assert "by 0.7 points, to 95.7% (McNemar's p 1: so small a difference can be chance)" in small
    loss = said(make_evidence(LABELS, {"none": better, "flip": worse}))
    assert "TTA can be left out: flip is 24.3 points below none (McNemar's p 1.2e-10) and takes" in loss
    assert "TTA" not in said(make_evidence(LABELS, {"flip": better}))


def test_copies_of_training_images() -> None:
    """40 copies, all right, of 140 images with 20 mistakes: 85.7% with them, 80% without."""
    leaked = np.isin(LABELS, (HAPPY, SAD))
    flattered = said(make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 20))}, leaked=leaked))
    assert "Exact copies of training images (40 of 140, 28.6%) raise accuracy by 5.7 points" in flattered
    assert "without them it is 80.0%" in flattered
    even = said(make_evidence(LABELS, {"none": LABELS}, leaked=leaked))
    assert "Images that also stand in the training split (40 of 140, 28.6%) flatter little" in even
    everything = said(make_evidence(LABELS, {"none": LABELS}, leaked=np.ones(140, dtype=bool)))
    assert "Every image measured on also stands in the training split" in everything
    assert "flatter little" not in everything
    assert "cop" not in said(make_evidence(LABELS, {"none": LABELS}))  # of an unknown dataset nothing is known


def test_copies_of_images_that_the_network_never_saw() -> None:
    elsewhere = describe_training().model_copy(update={"dataset_fingerprint": "another"})
    leaked = np.isin(LABELS, (HAPPY, SAD))
    for predicted in (LABELS, mistaken((FEAR, SAD, 20))):
        text = said(make_evidence(LABELS, {"none": predicted}, leaked=leaked, trained=(elsewhere,)))
        assert "stand in the training split" not in text
        assert "raise accuracy" not in text


def test_training_far_above_near_and_short_of_its_end() -> None:
    predicted = {"none": mistaken((FEAR, SAD, 20))}
    over = describe_training(train_accuracy=0.9, validation_accuracy=0.7, validation_rows=700)
    assert "90.0% of the augmented training images were right and 70.0% of the validation images, 20 points fewer" in (
        said(make_evidence(LABELS, predicted, trained=(over,)))
    )
    near = describe_training(train_accuracy=0.6, validation_accuracy=0.65, validation_rows=700)
    under = said(make_evidence(LABELS, predicted, trained=(near,)))
    assert "was right on 60.0% of the augmented training images and 65.0%" in under
    assert "at its best in the last" not in under
    last = describe_training(train_accuracy=0.7, validation_accuracy=0.66, validation_rows=700)
    last = last.model_copy(update={"epoch": last.config.training.epochs})
    assert f"at its best in the last of {last.epoch} epochs" in said(make_evidence(LABELS, predicted, trained=(last,)))
    assert "epoch" not in said(make_evidence(LABELS, predicted))


def test_weights_are_proposed_only_where_there_are_none() -> None:
    predicted = {"none": np.where(LABELS == DISGUST, ANGRY, LABELS)}
    labels = np.concatenate([LABELS, np.full(400, HAPPY)])
    predicted = {"none": np.concatenate([predicted["none"], np.full(400, HAPPY)])}
    plain = describe_training()
    weighted = describe_training(load_config(None, ["loss.class_weight_power=0.5"]))
    assert "loss.class_weight_power 0)" in said(make_evidence(labels, predicted, trained=(plain,)))
    assert "class_weight_power" not in said(make_evidence(labels, predicted, trained=(weighted,)))
    assert "class_weight_power" not in said(make_evidence(labels, predicted))


def test_flaws_of_the_dataset_and_whose_labels_they_are() -> None:
    rows = {
        "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
        "validation": (467, 56, 496, 895, 653, 415, 607),
    }
    splits = {
        name: SplitInfo(
            rows=sum(counts), labels=dict(zip(EMOTIONS, counts, strict=True)), conflicts=15, flat=1, near_leaked=359
        )
        for name, counts in rows.items()
    }
    predicted = {"none": mistaken((FEAR, SAD, 20), (SAD, FEAR, 20))}
    fer = said(make_evidence(LABELS, predicted, split="validation", dataset=describe_dataset(splits=splits)))
    assert "Goodfellow et al. 2013" in fer
    assert "at 71.4%, what is measured is agreement with these labels" in fer
    assert "Rare among 28,709 labelled training images: disgust 436 (1.5%)." in fer
    assert "15 in train, 15 in validation" in fer
    assert "also chose the epoch (25)" in fer
    assert "images that look nearly like a training image: 359 of 3,589 (10.0%)" in fer
    low = {"none": np.full(140, HAPPY)}
    assert "50.7 points above this network" in said(make_evidence(LABELS, low, dataset=describe_dataset(splits=splits)))
    splits["train"] = splits["train"].model_copy(update={"labels": splits["train"].labels | {"sad": 4831}})
    almost = said(make_evidence(LABELS, predicted, dataset=describe_dataset(splits=splits)))
    assert "Goodfellow" not in almost
    assert "chose the epoch" not in almost


def test_sure_answers() -> None:
    """Right and wrong at confidences apart would be another matter: here all share one bin, so none can be told."""
    assert "be left to people" not in said(make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 20))}, confidence=0.7))


def test_a_handful_of_images_says_nothing_of_classes() -> None:
    """Two images a class: with a few mistakes, each could be chance; only that is said."""
    labels = np.repeat(np.arange(7), 2)
    validation = describe_training(train_accuracy=0.9, validation_accuracy=0.5, validation_rows=14)
    for wrong in range(2, 6):
        predicted = labels.copy()
        predicted[:wrong] = HAPPY
        found = swot(make_evidence(labels, {"none": predicted}, confidence=0.8, trained=(validation,)))
        assert found["Weaknesses"] == []
        assert not any(name in line for lines in found.values() for line in lines[:-1] for name in ("angry:", "fear"))
        assert found["Threats"][-1].startswith("Recall is known only roughly where images are few, by its 95% interval")


def test_even_recall_is_a_strength_only_where_rows_are_uneven_and_no_class_is_missed() -> None:
    even = "Rare and frequent classes fare alike"
    labels = np.concatenate([LABELS, np.full(100, HAPPY)])
    right = np.concatenate([mistaken((FEAR, SAD, 2)), np.full(100, HAPPY)])
    assert even in said(make_evidence(labels, {"none": right}))
    assert even not in said(make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 2))}))
    many = np.concatenate([labels, np.full(1000, HAPPY), np.arange(7).repeat(200)])
    missed = np.concatenate([mistaken((FEAR, SAD, 20)), np.full(1100, HAPPY), np.arange(7).repeat(200)])
    missed[many == FEAR] = SAD
    assert even not in said(make_evidence(many, {"none": missed}))


def test_members_without_use_and_how_sure_that_is() -> None:
    evidence = make_evidence(LABELS, {"none": mistaken((FEAR, SAD, 6))})
    alone = evidence.evaluation.members[0]
    unsure = Paired(only_first_right=1, only_second_right=2, mcnemar_p=1.0)
    sure = Paired(only_first_right=0, only_second_right=8, mcnemar_p=0.0078)
    members = [
        alone.model_copy(update={"share": share, "accuracy": 0.9, "against_all": sure, "against_others": unsure})
        for share in (-1 / 140, 0.0)
    ]
    text = said(Evidence(evidence.evaluation.model_copy(update={"members": members}), None, (None, None)))
    left_out = "Network 1 (cnn3) can be left out: without it the other labels 1 image more right, of 140"
    assert f"{left_out} (McNemar's p 1: so small a difference can be chance)." in text
    assert "Network 2" not in text  # both can't be
    assert "2 networks together are 5.7 points more accurate than the best of them alone (McNemar's p 0.0078)." in text


def test_nothing_is_said_of_views_on_few_images() -> None:
    labels = np.repeat(np.arange(7), 2)
    assert "TTA" not in said(make_evidence(labels, {"none": labels, "flip": np.full(14, HAPPY)}))


def test_a_class_that_is_never_the_answer() -> None:
    predicted = np.where(LABELS == DISGUST, ANGRY, LABELS)
    assert "disgust is never the answer, and the label of 20 images." in said(
        make_evidence(LABELS, {"none": predicted})
    )


def test_one_class_only_all_wrong() -> None:
    found = swot(make_evidence(np.full(8, HAPPY), {"none": np.full(8, SAD)}))
    assert found["Weaknesses"][0].startswith("Always answering happy would be right for 100.0% of the images")


def test_calibration_that_chance_explains_is_not_spoken_of() -> None:
    """14 answers at 0.8 of which 9 are right: an error of 0.16, which chance makes of so few."""
    labels = np.repeat(np.arange(7), 2)
    predicted = np.where(np.arange(14) < 5, HAPPY, labels)
    assert "onfidence" not in said(make_evidence(labels, {"none": predicted}, confidence=0.8))
    many = np.tile(labels, 100), np.tile(predicted, 100)
    assert "Confidence misleads: its mean, 80.0%" in said(make_evidence(many[0], {"none": many[1]}, confidence=0.8))


def test_another_dataset_than_that_of_training_is_kept_apart(tmp_path: Path) -> None:
    elsewhere = describe_training().model_copy(update={"dataset_fingerprint": "another"})
    for trained, where in ((elsewhere, "## Evaluation data"), (describe_training(), "## Training data")):
        evidence = make_evidence(LABELS, {"none": LABELS}, dataset=describe_dataset(), trained=(trained,))
        parts = _parts(card_text(evidence, "name", tmp_path))
        assert [heading for heading, text in parts.items() if "From faces.zip (zip)" in text] == [where]
        assert ("learnt from another prepared dataset" in parts["## Training data"]) == (trained is elsewhere)
        assert "| unlabelled | 0 | 0 |" in parts[where]


def _parts(card: str) -> dict[str, str]:
    """Split a card at its headings."""
    return {part.splitlines()[0]: part for part in card.replace("\n## ", "\0## ").split("\0")}
