"""The findings of a model card follow from the metrics: what is said, with which numbers, and what is left out."""

import numpy as np

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.calibration import reliability_bins
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, Member, Paired, TtaScores, compare, score_predictions
from fer_ray.reporting.card_findings import CardFacts, findings
from fer_ray.reporting.model_card import render_card

ANGRY, DISGUST, FEAR, HAPPY, SAD = range(5)
LABELS = np.repeat(np.arange(7), 20)


FINGERPRINT = "f" * 64


def probabilities_of(predicted: np.ndarray, confidence: float) -> np.ndarray:
    """Give the predicted label this probability, and the others equal shares of the rest."""
    probabilities = np.full((len(predicted), len(EMOTIONS)), (1 - confidence) / (len(EMOTIONS) - 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return probabilities


def describe_dataset(**changes: object) -> DatasetInfo:
    """Describe a clean dataset of 700 training and 140 test images, equally many of each label."""
    values: dict[str, object] = {
        "fer_ray_version": "1",
        "source": "faces.zip",
        "source_format": "zip",
        "size": 48,
        "splits": {
            "train": SplitInfo(rows=700, labels=dict.fromkeys(EMOTIONS, 100)),
            "test": SplitInfo(rows=140, labels=dict.fromkeys(EMOTIONS, 20)),
        },
        "mean": 0.5,
        "std": 0.25,
        "fingerprint": FINGERPRINT,
    }
    return DatasetInfo.model_validate(values | changes)


def describe_training(config: Config | None = None, fingerprint: str = FINGERPRINT, **metrics: float) -> CheckpointInfo:
    return CheckpointInfo(
        config=config or Config(),
        mean=0.5,
        std=0.25,
        size=48,
        epoch=1,
        metrics=metrics,
        dataset_fingerprint=fingerprint,
    )


def measure(
    labels: np.ndarray, predicted: np.ndarray, confidence: float, leaked: np.ndarray, views: int, fewest: np.ndarray
) -> TtaScores:
    probabilities = probabilities_of(predicted, confidence)
    official = score_predictions(labels, probabilities)
    return TtaScores(
        official=official,
        without_leaked=None if leaked.all() else score_predictions(labels[~leaked], probabilities[~leaked]),
        images_per_s=1000 / views,
        views=views,
        ece_uncalibrated=official.ece,
        nll_uncalibrated=official.nll,
        reliability=reliability_bins(labels, probabilities),
        against_fewest=compare(labels, predicted, fewest) if views > 1 else None,
    )


def make_facts(
    labels: np.ndarray,
    tta: dict[str, np.ndarray],
    *,
    confidence: float = 0.99,
    leaked: np.ndarray | None = None,
    split: str = "test",
    dataset: DatasetInfo | None = None,
    trained: CheckpointInfo | None = None,
) -> CardFacts:
    """Return the facts of an evaluation of one network.

    Args:
        labels: of the images, csv order.
        tta: name to predicted labels, the main one last; the first has one view, each further one has one more.
        confidence: of every prediction.
        leaked: bool, whether an image is also in train; None for no image.
        split: the evaluated split.
        dataset: None for a dataset that is no longer there.
        trained: how the network was trained; None if its checkpoint is no longer there.
    """
    copies = np.zeros(len(labels), dtype=bool) if leaked is None else leaked
    fewest = next(iter(tta.values()))
    measured = {
        name: measure(labels, predicted, confidence, copies, views, fewest)
        for views, (name, predicted) in enumerate(tta.items(), 1)
    }
    main = list(measured)[-1]
    member = Member(
        checkpoint="runs/a/checkpoint",
        architecture="cnn3",
        parameters=1_300_000,
        epoch=25,
        temperature=1.0,
        accuracy=measured[main].official.accuracy,
        nll=measured[main].official.nll,
        share=None,
        against_all=None,
        against_others=None,
    )
    evaluation = Evaluation(
        fer_ray_version="1",
        members=[member],
        pairs=[],
        dataset="fer-data",
        dataset_fingerprint=FINGERPRINT,
        split=split,
        rows=len(labels),
        leaked_rows=int(copies.sum()),
        label_names=list(EMOTIONS),
        device="cpu",
        precision="float32",
        main_tta=main,
        tta=measured,
    )
    return CardFacts(evaluation, dataset, (trained,))


def mistaken(*mistakes: tuple[int, int, int]) -> np.ndarray:
    """Return correct predictions for ``LABELS`` except for (label, predicted, images)."""
    predicted = LABELS.copy()
    taken = dict.fromkeys(range(7), 0)
    for label, other, count in mistakes:
        first = label * 20 + taken[label]
        predicted[first : first + count] = other
        taken[label] += count
    return predicted


def text_of(facts: CardFacts) -> str:
    return "\n".join(f"{heading}: {line}" for heading, lines in findings(facts).items() for line in lines)


FEAR_MISSED = {"none": mistaken((FEAR, SAD, 20))}


def test_a_perfect_classifier() -> None:
    found = findings(make_facts(LABELS, {"none": LABELS}, dataset=describe_dataset()))
    accuracy, classes, calibration, copies = found["Strengths"]
    assert accuracy.startswith("100.0% of 140 images are labelled correctly (95% interval 97.3% to 100.0%). Always")
    assert classes.startswith("F1 is 0.75 or higher for 7 of 7 classes: ")
    assert calibration.startswith("Confidence is reliable: it differs from accuracy by 1 point on average")
    assert copies == "None of the 140 images is an exact copy of a training image."
    assert found["Weaknesses"] == found["Opportunities"] == found["Threats"] == []


def test_a_classifier_at_chance() -> None:
    predicted = np.random.default_rng(0).integers(0, 7, 140)
    found = findings(make_facts(LABELS, {"none": predicted}, confidence=0.9))
    assert found["Strengths"] == []
    accuracy, *rest = found["Weaknesses"]
    assert accuracy.startswith(f"{(predicted == LABELS).mean():.1%} of 140 images are labelled correctly")
    assert accuracy.endswith("would reach 14.3%, so the network is not clearly better than that.")
    assert any(line.startswith("Confidence is not reliable: its mean, 90.0%, is higher") for line in rest)


def test_classes_with_their_counts() -> None:
    text = text_of(make_facts(LABELS, {"none": mistaken((FEAR, SAD, 16))}))
    assert "Most images of fear are missed: 4 of 20 are found (recall 20.0%, 95% interval 8.1% to 41.6%)." in text


def test_a_handful_of_images_says_nothing_about_classes_calibration_and_views() -> None:
    labels = np.repeat(np.arange(7), 2)
    for wrong in range(2, 6):
        predicted = np.where(np.arange(14) < wrong, HAPPY, labels)
        found = findings(make_facts(labels, {"none": labels, "flip": predicted}, confidence=0.8))
        assert found["Weaknesses"] == found["Opportunities"] == found["Threats"] == []
    many = np.tile(labels, 100), np.tile(np.where(np.arange(14) < 5, HAPPY, labels), 100)
    assert "not reliable: its mean, 80.0%" in text_of(make_facts(many[0], {"none": many[1]}, confidence=0.8))


def test_views_that_help_and_views_that_do_not() -> None:
    worse, better = mistaken((FEAR, SAD, 20), (SAD, FEAR, 20)), mistaken((FEAR, SAD, 6))
    gain = text_of(make_facts(LABELS, {"none": worse, "flip": better}))
    assert "TTA flip raises the accuracy of none by 24.3 points, to 95.7% (McNemar's p 1.2e-10), and takes 2.0" in gain
    small = text_of(make_facts(LABELS, {"none": mistaken((FEAR, SAD, 7)), "flip": better}))
    assert "by 0.7 points, to 95.7% (McNemar's p 1: such a small difference may be chance)" in small
    loss = text_of(make_facts(LABELS, {"none": better, "flip": worse}))
    assert "lowers the accuracy of none by 24.3 points, to 71.4%" in loss and "It can be left out." in loss
    assert "keeps the accuracy" in text_of(make_facts(LABELS, {"none": better, "flip": better}))
    assert "TTA" not in text_of(make_facts(LABELS, {"flip": better}))


def test_copies_of_training_images() -> None:
    """40 correct copies among 140 images with 20 mistakes: 85.7% with them, 80% without."""
    leaked = np.isin(LABELS, (HAPPY, SAD))
    raised = text_of(make_facts(LABELS, FEAR_MISSED, leaked=leaked))
    assert "Exact copies of training images (40 of 140, 28.6%) raise the accuracy by 5.7 points" in raised
    assert "without them it is 80.0% (95% interval 71.1% to 86.7%)" in raised
    assert "hardly change the accuracy" in text_of(make_facts(LABELS, {"none": LABELS}, leaked=leaked))
    everything = text_of(make_facts(LABELS, {"none": LABELS}, leaked=np.ones(140, dtype=bool)))
    assert "Threats: Every image is an exact copy of a training image" in everything
    assert "cop" not in text_of(make_facts(LABELS, {"none": LABELS}))  # the dataset is unknown
    text = text_of(make_facts(LABELS, FEAR_MISSED, leaked=leaked, trained=describe_training(fingerprint="another")))
    assert "Exact copies" not in text and "The network was trained on another dataset: copies of its" in text


def test_rare_classes_and_class_weights_only_where_there_are_none() -> None:
    labels = np.concatenate([LABELS, np.full(400, HAPPY)])
    predicted = {"none": np.where(labels == DISGUST, ANGRY, labels)}
    plain, weighted = describe_training(), describe_training(load_config(None, ["loss.class_weight_power=0.5"]))
    text = text_of(make_facts(labels, predicted, trained=plain))
    assert "accuracy is 96.3%, but 85.7% if every class counts the same" in text
    assert "loss.class_weight_power 0)" in text
    assert "class_weight_power" not in text_of(make_facts(labels, predicted, trained=weighted))
    assert "class_weight_power" not in text_of(make_facts(labels, predicted))


def test_fer2013() -> None:
    rows = {"train": (3995, 436, 4097, 7215, 4830, 3171, 4965), "validation": (467, 56, 496, 895, 653, 415, 607)}
    splits = {
        name: SplitInfo(
            rows=sum(counts), labels=dict(zip(EMOTIONS, counts, strict=True)), conflicts=15, near_leaked=359
        )
        for name, counts in rows.items()
    }
    dataset = describe_dataset(splits=splits)
    text = text_of(make_facts(LABELS, FEAR_MISSED, split="validation", dataset=dataset))
    assert "(Goodfellow et al. 2013, arXiv 1307.0414). An accuracy near or above that measures agreement" in text
    assert "15 in train, 15 in validation" in text
    assert "The validation images also chose the epoch" in text
    assert "nearly equal to a training image (359 of 3,589, 10.0%)" in text
    low = text_of(make_facts(LABELS, {"none": np.full(140, HAPPY)}, dataset=dataset))
    assert "50.7 points more than this network" in low and "chose the epoch" not in low
    assert "Goodfellow" not in text_of(make_facts(LABELS, FEAR_MISSED, dataset=describe_dataset()))


def test_confident_predictions() -> None:
    """Of 140 predictions at one confidence, 86% are right; of 70 at a higher one, all are."""
    facts = make_facts(LABELS, FEAR_MISSED, confidence=0.7)
    assert "people can label the rest" not in text_of(facts)
    bins = [one.model_copy(update={"rows": 0}) for one in facts.evaluation.main.reliability]
    bins[-1] = bins[-1].model_copy(update={"rows": 70, "accuracy": 1.0, "confidence": 0.99})
    bins[10] = bins[10].model_copy(update={"rows": 70, "accuracy": 5 / 7})
    main = facts.evaluation.main.model_copy(update={"reliability": bins})
    changed = facts.evaluation.model_copy(update={"tta": {"none": main}})
    assert "confidence above 0.93 are right in 100.0% of cases (95% interval 94.8% to 100.0%). They are 50.0%" in (
        text_of(CardFacts(changed, None, (None,)))
    )


def test_networks_of_no_use_and_how_certain_that_is() -> None:
    evaluation = make_facts(LABELS, {"none": mistaken((FEAR, SAD, 6))}).evaluation
    unsure = Paired(only_first_right=1, only_second_right=2, mcnemar_p=1.0)
    sure = Paired(only_first_right=0, only_second_right=8, mcnemar_p=0.0078)
    members = [
        evaluation.members[0].model_copy(
            update={"share": share, "accuracy": 0.9, "against_all": sure, "against_others": unsure}
        )
        for share in (-1 / 140, 0.0)
    ]
    text = text_of(CardFacts(evaluation.model_copy(update={"members": members}), None, (None, None)))
    left_out = "Network 1 (cnn3) can be left out: without it the accuracy is 0.7 points higher"
    assert f"{left_out} (McNemar's p 1: such a small difference may be chance)." in text
    assert "Network 2" not in text  # not both at once
    assert "2 networks together are 5.7 points more accurate than the best of them alone (McNemar's p 0.0078)." in text


def test_the_training_dataset_is_told_from_the_evaluated_one() -> None:
    elsewhere = describe_training(fingerprint="another")
    for trained, said in ((elsewhere, "on another dataset, with"), (describe_training(), "on the train split of that")):
        card = render_card(
            make_facts(LABELS, {"none": LABELS}, dataset=describe_dataset(), trained=trained), "a|b", None
        )
        assert card.startswith("# Model card: cnn3 for facial expressions (a\\|b)\n\n## Model details\n")
        training = card.split("\n## Training data\n")[1].split("\n## ")[0]
        assert said in training and "\n\n    model:\n" in training
        assert "Source: faces.zip (zip)" in card and "| all images | 700 | 140 |" in card
        assert "\n\n\n" not in card
