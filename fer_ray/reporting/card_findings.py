"""Findings of a model card: sentences about strengths, weaknesses, opportunities and threats.

Each function is one rule. It yields a heading and a sentence for each finding, and nothing where the measured numbers
don't show it or where the images are too few to tell.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from fer_ray.console.text import amount, points
from fer_ray.dataset.store import DatasetInfo
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, Paired, Scores, wilson_interval

HEADINGS = STRENGTH, WEAKNESS, OPPORTUNITY, THREAT = ("Strengths", "Weaknesses", "Opportunities", "Threats")
Finding = tuple[str, str]

_ENOUGH = 20
"""Images of a class below which no rule judges it: the 95% interval of a share is then wider than 40 points."""
_GOOD_F1, _LOW_RECALL = 0.75, 0.5
_UNEVEN = 0.02
"""Accuracy minus balanced accuracy from which classes count as unevenly recognised."""
_COPIES_MATTER, _CALIBRATED_ECE = 0.005, 0.05
_SURE_ACCURACY, _SURE_SHARE = 0.9, 0.1
_CHANCE = 0.05
"""p-value of McNemar's test from which a difference may be chance."""
_FER2013_TRAIN = (3995, 436, 4097, 7215, 4830, 3171, 4965)
_PEOPLE, _PEOPLE_SPREAD = 0.65, 0.05
"""Agreement of people with FER-2013's labels (Goodfellow et al. 2013)."""


@dataclass(frozen=True)
class CardFacts:
    """What a model card is based on.

    Attributes:
        evaluation: the metrics.
        dataset: the dataset that was evaluated; None if it is no longer there.
        trained: how each member was trained, in order; None if its checkpoint is no longer there.
    """

    evaluation: Evaluation
    dataset: DatasetInfo | None
    trained: tuple[CheckpointInfo | None, ...]

    @property
    def members(self) -> list[tuple[str, CheckpointInfo]]:
        """Name and training of each member whose checkpoint is there."""
        names = [f"Network {number}" for number in range(1, len(self.trained) + 1)]
        names = names if len(names) > 1 else ["The network"]
        return [(name, info) for name, info in zip(names, self.trained, strict=True) if info]

    @property
    def trained_here(self) -> bool:
        """Whether all known members were trained on the evaluated dataset; otherwise its copies tell nothing."""
        return all(info.dataset_fingerprint == self.evaluation.dataset_fingerprint for _, info in self.members)

    @property
    def scores(self) -> Scores:
        """Metrics on all images with the main test-time augmentation."""
        return self.evaluation.main.official


def accuracy(facts: CardFacts) -> Iterator[Finding]:
    """Compare the accuracy with always predicting the most frequent label."""
    scores = facts.scores
    name, most = max(scores.classes.items(), key=lambda item: item[1].support)
    share = most.support / scores.rows
    text = (
        f"{scores.accuracy:.1%} of {amount(scores.rows, 'image')} are labelled correctly ({_interval(scores)}). Always"
        f" predicting {name} would reach {share:.1%}"
    )
    if scores.accuracy_low > share:
        yield STRENGTH, f"{text}. Cohen's kappa is {scores.kappa:.2f} (0: chance, 1: perfect)."
    else:
        yield WEAKNESS, f"{text}, so the network is not clearly better than that."


def classes(facts: CardFacts) -> Iterator[Finding]:
    """Name the classes with a high F1, and those of which most images are missed for certain."""
    judged = {name: one for name, one in facts.scores.classes.items() if one.support >= _ENOUGH}
    good = sorted((name for name in judged if judged[name].f1 >= _GOOD_F1), key=lambda name: -judged[name].f1)
    if good:
        listed = ", ".join(f"{name} ({judged[name].f1:.2f})" for name in good)
        yield STRENGTH, f"F1 is {_GOOD_F1} or higher for {len(good)} of {len(judged)} classes: {listed}."
    for name, one in judged.items():
        low, high = wilson_interval(found := round(one.recall * one.support), one.support)
        recall = f"recall {one.recall:.1%}, 95% interval {low:.1%} to {high:.1%}"
        if high < _LOW_RECALL:
            yield WEAKNESS, f"Most images of {name} are missed: {found:,} of {one.support:,} are found ({recall})."


def imbalance(facts: CardFacts) -> Iterator[Finding]:
    """Say whether rare classes are recognised less well, and what may help."""
    scores = facts.scores
    fewest = min(one.support for one in scores.classes.values() if one.support)
    if fewest < _ENOUGH or scores.accuracy - scores.balanced_accuracy < _UNEVEN:
        return
    yield (
        WEAKNESS,
        f"Rare classes are recognised less well: accuracy is {scores.accuracy:.1%}, but {scores.balanced_accuracy:.1%}"
        " if every class counts the same (balanced accuracy).",
    )
    if all(info and info.config.loss.class_weight_power == 0 for info in facts.trained):
        text = "The loss was not weighted by class (loss.class_weight_power 0). Weights may help rare classes at some"
        yield OPPORTUNITY, f"{text} cost in accuracy."


def calibration(facts: CardFacts) -> Iterator[Finding]:
    """Say whether confidence equals accuracy, more closely or less than chance alone explains."""
    evaluation, scores = facts.evaluation, facts.scores
    bins = [(one.rows, one.confidence) for one in evaluation.main.reliability if one.confidence is not None]
    # With perfect calibration, accuracy in a bin still deviates from its confidence c with a standard deviation of
    # √(c(1-c)/n); the mean deviation of a normal distribution is √(2/π) times that.
    by_chance = sum(math.sqrt(2 / math.pi * rows * max(0.0, c * (1 - c))) for rows, c in bins) / scores.rows
    text = f"differs from accuracy by {points(scores.ece)} on average (expected calibration error)."
    if any(member.temperature != 1 for member in evaluation.members):
        text += f" Without temperature scaling it would by {points(evaluation.main.ece_uncalibrated)}."
    mean = sum(rows * confidence for rows, confidence in bins) / scores.rows
    if scores.ece <= _CALIBRATED_ECE and by_chance <= _CALIBRATED_ECE:
        yield STRENGTH, f"Confidence is reliable: it {text}"
    elif scores.ece > max(_CALIBRATED_ECE, 2 * by_chance):
        way = "higher" if mean > scores.accuracy else "lower"
        means = f"its mean, {mean:.1%}, is {way} than the accuracy, {scores.accuracy:.1%}"
        yield WEAKNESS, f"Confidence is not reliable: {means}; it {text}"


def copies(facts: CardFacts) -> Iterator[Finding]:
    """Say how many images are copies of training images, and how much they change the accuracy."""
    evaluation, dataset = facts.evaluation, facts.dataset
    rows, leaked, clean = evaluation.rows, evaluation.leaked_rows, evaluation.main.without_leaked
    if not facts.trained_here or evaluation.split == "train":
        return
    if leaked and clean is None:
        yield THREAT, "Every image is an exact copy of a training image: nothing is known about new images."
    elif leaked and clean:
        gain = facts.scores.accuracy - clean.accuracy
        effect = f"raise the accuracy by {points(gain)}" if gain >= _COPIES_MATTER else "hardly change the accuracy"
        yield (
            WEAKNESS if gain >= _COPIES_MATTER else STRENGTH,
            f"Exact copies of training images ({leaked:,} of {rows:,}, {leaked / rows:.1%}) {effect}: without them it"
            f" is {clean.accuracy:.1%} ({_interval(clean)}).",
        )
    elif dataset and "train" in dataset.splits:
        yield STRENGTH, f"None of the {amount(rows, 'image')} is an exact copy of a training image."
    split = dataset.splits.get(evaluation.split) if dataset else None
    if split and split.near_leaked:
        share = f"{split.near_leaked:,} of {split.rows:,}, {split.near_leaked / split.rows:.1%}"
        yield THREAT, f"Further images are nearly equal to a training image ({share}). All metrics include them."


def augmentation(facts: CardFacts) -> Iterator[Finding]:
    """Compare the best test-time augmentation with the one that has the fewest views."""
    tta = facts.evaluation.tta
    others = [name for name in tta if tta[name].against_fewest]
    if not others or facts.scores.rows < 5 * _ENOUGH:
        return
    (plain,) = set(tta) - set(others)
    name = max(others, key=lambda name: tta[name].official.accuracy)
    fewest, best = tta[plain], tta[name]
    gain = best.official.accuracy - fewest.official.accuracy
    change = f"{'raises' if gain > 0 else 'lowers'} the accuracy of {plain} by {points(gain)}, to"
    cost = f"takes {fewest.images_per_s / best.images_per_s:.1f} times as long ({best.images_per_s:,.0f} images/s)"
    yield (
        OPPORTUNITY,
        f"TTA {name} {change if gain else 'keeps the accuracy of'} {best.official.accuracy:.1%}"
        f"{_sure(best.against_fewest)}, and {cost}.{'' if gain > 0 else ' It can be left out.'}",
    )


def confident_predictions(facts: CardFacts) -> Iterator[Finding]:
    """Find the confidence above which nine of ten predictions are right, if that is true of a tenth or more."""
    bins = [one for one in reversed(facts.evaluation.main.reliability) if one.rows]
    rows = list(accumulate(one.rows for one in bins))
    right = list(accumulate(one.rows * (one.accuracy or 0.0) for one in bins))
    sure = [number for number in range(len(bins)) if right[number] >= _SURE_ACCURACY * rows[number]]
    enough = max(_ENOUGH, _SURE_SHARE * facts.scores.rows)
    if facts.scores.accuracy < _SURE_ACCURACY and sure and rows[last := sure[-1]] >= enough:
        low, high = wilson_interval(round(right[last]), rows[last])
        yield (
            OPPORTUNITY,
            f"Predictions with a confidence above {bins[last].low:.2f} are right in {right[last] / rows[last]:.1%} of"
            f" cases (95% interval {low:.1%} to {high:.1%}). They are {rows[last] / facts.scores.rows:.1%} of all"
            " predictions; people can label the rest.",
        )


def ensemble(facts: CardFacts) -> Iterator[Finding]:
    """Say what several networks gain over the best one, and which one can be left out."""
    members, together = facts.evaluation.members, facts.scores.accuracy
    best = max(members, key=lambda member: member.accuracy)
    if len(members) > 1 and together > best.accuracy:
        gain = f"{points(together - best.accuracy)} more accurate than the best of them alone{_sure(best.against_all)}"
        yield STRENGTH, f"{len(members)} networks together are {gain}."
    number, least = min(enumerate(members, 1), key=lambda numbered: numbered[1].share or 0.0)
    if least.share is not None and least.share <= 0:
        change = f"{points(least.share)} higher{_sure(least.against_others)}"
        text = f"Network {number} ({least.architecture}) can be left out: without it the accuracy is {change}."
        yield OPPORTUNITY, text


def selection(facts: CardFacts) -> Iterator[Finding]:
    """Warn if the evaluated images influenced the network, or if it is unknown which images it was trained on."""
    evaluation = facts.evaluation
    if facts.trained_here and evaluation.split == "validation":
        text = "The validation images also chose the epoch of the checkpoint, so all metrics are slightly optimistic."
        yield THREAT, f"{text} No test split was evaluated."
    elif facts.trained_here and evaluation.split == "train":
        yield THREAT, "The network was trained on the evaluated images: nothing is known about new images."
    for name, info in facts.members:
        if info.dataset_fingerprint != evaluation.dataset_fingerprint:
            yield THREAT, f"{name} was trained on another dataset: copies of its training images are unknown."


def labels(facts: CardFacts) -> Iterator[Finding]:
    """Warn of wrong labels: identical images with different labels, and what is known about FER-2013's."""
    splits = facts.dataset.splits if facts.dataset else {}
    if listed := ", ".join(f"{split.conflicts:,} in {name}" for name, split in splits.items() if split.conflicts):
        yield THREAT, f"Some images occur with different labels, of which at most one can be right: {listed}."
    if "train" in splits and tuple(splits["train"].labels.values()) == _FER2013_TRAIN:
        text = (
            f"People agree with FER-2013's labels for about {_PEOPLE:.0%} (± {points(_PEOPLE_SPREAD)}) of the images"
            " (Goodfellow et al. 2013, arXiv 1307.0414)"
        )
        if facts.scores.accuracy > _PEOPLE - _PEOPLE_SPREAD:
            text += ". An accuracy near or above that measures agreement with these labels rather than recognition."
        else:
            text += (
                f", {points(_PEOPLE - facts.scores.accuracy)} more than this network: wrong labels are not the cause."
            )
        yield THREAT, text


def findings(facts: CardFacts) -> dict[str, list[str]]:
    """Return the sentences of all rules by heading."""
    rules = (
        *(accuracy, classes, calibration, copies, ensemble, imbalance),
        *(augmentation, confident_predictions, selection, labels),
    )
    found = [finding for rule in rules for finding in rule(facts)]
    return {heading: [text for under, text in found if under == heading] for heading in HEADINGS}


def _interval(scores: Scores) -> str:
    return f"95% interval {scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}"


def _sure(paired: Paired | None) -> str:
    """Return how certain a difference is, to be put behind it."""
    if paired is None:
        return ""
    chance = ": such a small difference may be chance" if paired.mcnemar_p >= _CHANCE else ""
    return f" (McNemar's p {paired.mcnemar_p:.2g}{chance})"
