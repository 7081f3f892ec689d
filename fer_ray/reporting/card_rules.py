"""Sentences about an evaluation's figures, each function a rule: its docstring says when it speaks.

Rules about the rows and the training behind the figures are in ``findings_data``.
"""

import math
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
from scipy.stats import binomtest

from fer_ray.console.text import amount, points
from fer_ray.inference.scores import Paired, wilson_interval
from fer_ray.reporting.card_facts import ENOUGH, Evidence, interval, majority
from fer_ray.reporting.evaluation import confusions

# Where a difference begins to matter to somebody who uses the network: a class found three times out of four or missed
# every second time, one mistake in ten of a label going to one other label, five points.
_WELL_FOUND, _OFTEN_MISSED, _OFTEN_CONFUSED, _FAR_APART = 0.75, 0.5, 0.1, 0.05
_CALIBRATED_ECE, _CALIBRATION_GAIN = 0.05, 0.005
_OFTEN_WRONGLY_CHOSEN = 0.2
_SURE_ACCURACY, _SURE_SHARE = 0.9, 0.1
_CONFUSIONS_NAMED = 4
_CHANCE = 0.05
"""Where the p-value of a test is above this, a difference is not spoken of."""


def better_than_one_answer(evidence: Evidence) -> Iterator[str]:
    """The interval lies above the share of the most frequent label."""
    scores, (name, share) = evidence.scores, majority(evidence.scores)
    if scores.accuracy_low > share:
        yield (
            f"{scores.accuracy:.1%} of {amount(scores.rows, 'image')} are labelled right (95% interval"
            f" {scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}), where always answering {name} would reach"
            f" {share:.1%}; beyond chance the agreement is {scores.kappa:.2f} (Cohen's kappa, at most 1)."
        )


def not_better_than_one_answer(evidence: Evidence) -> Iterator[str]:
    """The interval reaches down to the share of the most frequent label."""
    scores, (name, share) = evidence.scores, majority(evidence.scores)
    if scores.accuracy_low <= share and scores.accuracy < 1:
        yield (
            f"Always answering {name} would be right for {share:.1%} of the images; the accuracy of"
            f" {scores.accuracy:.1%} (95% interval {scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}) is not"
            " surely above that."
        )


def no_mistakes(evidence: Evidence) -> Iterator[str]:
    """Every row is right."""
    scores = evidence.scores
    if scores.accuracy == 1:
        yield (
            f"Not one of {amount(scores.rows, 'image')} is labelled wrongly; on others of the same kind, the 95%"
            f" interval reaches down to {scores.accuracy_low:.1%}."
        )


def well_found_classes(evidence: Evidence) -> Iterator[str]:
    """Some, but not all, classes have a high F1, of those with enough rows."""
    classes = {name: one for name, one in evidence.scores.classes.items() if one.support >= ENOUGH}
    found = sorted((name for name in classes if classes[name].f1 >= _WELL_FOUND), key=lambda name: -classes[name].f1)
    if found and len(found) < len(classes):
        listed = ", ".join(f"{name} ({classes[name].f1:.2f})" for name in found)
        yield f"F1 is {_WELL_FOUND} or more for {len(found)} of {len(classes)} classes: {listed}."


def evenly_good(evidence: Evidence) -> Iterator[str]:
    """Classes differ much in rows, none is missed, and it makes little difference whether they count alike."""
    scores, rarest = evidence.scores, evidence.smallest_support
    most = max(one.support for one in scores.classes.values())
    if rarest < ENOUGH or most < 2 * rarest or any(missed_classes(evidence)):
        return
    if abs(scores.accuracy - scores.balanced_accuracy) < _FAR_APART / 2:
        yield (
            f"Rare and frequent classes fare alike: counted evenly, accuracy is {scores.balanced_accuracy:.1%}, within"
            f" {points(_FAR_APART / 2)} of the {scores.accuracy:.1%} by rows."
        )


def missed_classes(evidence: Evidence) -> Iterator[str]:
    """More rows of a class are missed than found, surely: the interval of its recall lies below one half."""
    for name, one in evidence.scores.classes.items():
        found = round(one.recall * one.support)
        if one.support >= ENOUGH and wilson_interval(found, one.support)[1] < _OFTEN_MISSED:
            yield (
                f"{name}: {found:,} of {one.support:,} images found (recall {one.recall:.2f}, 95% interval"
                f" {interval(found, one.support)}), so that most are missed."
            )


def frequent_confusions(evidence: Evidence) -> Iterator[str]:
    """A tenth or more of a label's rows, if it has enough, get the same other label."""
    classes = evidence.scores.classes
    often = [
        cell
        for cell in confusions(evidence.scores)
        if cell[3] >= _OFTEN_CONFUSED and classes[cell[0]].support >= ENOUGH
    ]
    often.sort(key=lambda cell: -cell[3])
    for label, predicted, count, share in often[:_CONFUSIONS_NAMED]:
        yield f"{label} is taken for {predicted} in {count:,} of {classes[label].support:,} images ({share:.1%})."
    if len(often) > _CONFUSIONS_NAMED:
        rest = ", ".join(
            f"{label} for {predicted} ({share:.1%})" for label, predicted, _, share in often[_CONFUSIONS_NAMED:]
        )
        yield f"Also taken for one other label in {_OFTEN_CONFUSED:.0%} or more of their images: {rest}."


def wrongly_frequent_answers(evidence: Evidence) -> Iterator[str]:
    """A label is given much more or less often than it stands, by more than chance (McNemar's exact test)."""
    counts = np.array(evidence.scores.confusion)
    for number, (name, one) in enumerate(evidence.scores.classes.items()):
        given = int(counts[:, number].sum())
        if one.support < ENOUGH or abs(given / one.support - 1) < _OFTEN_WRONGLY_CHOSEN:
            continue
        right = int(counts[number, number])
        if binomtest(given - right, given + one.support - 2 * right).pvalue < _CHANCE:
            way = "more" if given > one.support else "less"
            if not given:
                yield f"{name} is never the answer, and the label of {one.support:,} images."
                continue
            yield (
                f"{name} is the answer for {amount(given, 'image')} and the label of {one.support:,}:"
                f" {abs(given / one.support - 1):.0%} {way} often than right."
            )


def uneven(evidence: Evidence) -> Iterator[str]:
    """Counting classes alike, each with enough rows, lowers the accuracy."""
    scores = evidence.scores
    if evidence.smallest_support >= ENOUGH and scores.accuracy - scores.balanced_accuracy >= _FAR_APART:
        yield (
            f"Rare classes fare worse: counted evenly over classes, accuracy falls from {scores.accuracy:.1%} to"
            f" {scores.balanced_accuracy:.1%}, and macro-F1 is {scores.macro_f1:.3f}."
        )


def believable(evidence: Evidence) -> Iterator[str]:
    """Confidence lies near the share of right answers, of rows enough to tell."""
    scores = evidence.scores
    if scores.ece <= _CALIBRATED_ECE and _ece_by_chance(evidence) <= _CALIBRATED_ECE:
        yield (
            f"Confidence can be taken at its word: it lies {points(scores.ece)} from the share of right answers on"
            f" average (expected calibration error{_fitted_here(evidence)})."
        )


def calibration_helped(evidence: Evidence) -> Iterator[str]:
    """The temperature lowered both the calibration error, by more than half of what chance makes, and the NLL."""
    main, scores = evidence.evaluation.main, evidence.scores
    least = max(_CALIBRATION_GAIN, _ece_by_chance(evidence) / 2)
    if main.ece_uncalibrated - scores.ece >= least and scores.nll < main.nll_uncalibrated:
        values = ", ".join(f"{member.temperature:.2f}" for member in evidence.evaluation.members)
        yield (
            f"Temperature scaling (T = {values}) lowers the expected calibration error from"
            f" {main.ece_uncalibrated:.3f} to {scores.ece:.3f}, and the negative log-likelihood from"
            f" {main.nll_uncalibrated:.3f} to {scores.nll:.3f}{_fitted_here(evidence)}."
        )


def not_believable(evidence: Evidence) -> Iterator[str]:
    """Confidence lies far from the share of right answers: twice as far as chance alone would have it."""
    scores = evidence.scores
    if scores.ece > max(_CALIBRATED_ECE, 2 * _ece_by_chance(evidence)):
        bins = [
            (one.rows, one.confidence) for one in evidence.evaluation.main.reliability if one.confidence is not None
        ]
        mean = sum(rows * confidence for rows, confidence in bins) / sum(rows for rows, _ in bins)
        way = "higher" if mean > scores.accuracy else "lower"
        yield (
            f"Confidence misleads: its mean, {mean:.1%}, is {way} than the accuracy, {scores.accuracy:.1%}, and it lies"
            f" {points(scores.ece)} from the share of right answers on average (expected calibration error)."
        )


def augmentation_pays(evidence: Evidence) -> Iterator[str]:
    """Of several TTAs, one with more views is more accurate than the one with the fewest; or none is."""
    tta = evidence.evaluation.tta
    others = [name for name in tta if tta[name].against_fewest]
    if not others or evidence.scores.rows < 5 * ENOUGH:
        return
    (plain,) = set(tta) - set(others)
    best = max(others, key=lambda name: tta[name].official.accuracy)
    gain = tta[best].official.accuracy - tta[plain].official.accuracy
    slower = tta[plain].images_per_s / tta[best].images_per_s
    speeds = f"{tta[best].images_per_s:,.0f} instead of {tta[plain].images_per_s:,.0f} images/s"
    if gain > 0:
        yield (
            f"TTA {best} raises accuracy over {plain} by {points(gain)}, to {tta[best].official.accuracy:.1%}"
            f"{_surely(tta[best].against_fewest)}, and takes {slower:.1f} times as long ({speeds})."
        )
    else:
        level = f"{points(gain)} below {plain}" if gain else f"exactly as accurate as {plain}"
        which = f"{best}, the best of the others," if len(others) > 1 else best
        yield (
            f"TTA can be left out: {which} is {level}{_surely(tta[best].against_fewest)} and takes {slower:.1f} times"
            f" as long ({speeds})."
        )


def second_answer(evidence: Evidence) -> Iterator[str]:
    """The label is often the second answer, of rows enough to tell."""
    scores = evidence.scores
    if scores.rows >= 5 * ENOUGH and scores.top2_accuracy - scores.accuracy >= 2 * _FAR_APART:
        yield (
            f"Showing the two most probable labels holds the right one in {scores.top2_accuracy:.1%}, against"
            f" {scores.accuracy:.1%} with one."
        )


def sure_answers(evidence: Evidence) -> Iterator[str]:
    """Above some confidence, of enough answers, nine of ten are right, though not of all."""
    if evidence.scores.accuracy >= _SURE_ACCURACY:
        return
    bins = [one for one in reversed(evidence.evaluation.main.reliability) if one.rows]
    rows = list(accumulate(one.rows for one in bins))
    right = list(accumulate(one.rows * (one.accuracy or 0.0) for one in bins))
    sure = [number for number in range(len(bins)) if right[number] >= _SURE_ACCURACY * rows[number]]
    if sure and rows[sure[-1]] >= max(ENOUGH, _SURE_SHARE * evidence.scores.rows):
        last = sure[-1]
        ends = interval(round(right[last]), rows[last])
        yield (
            f"Answers with a confidence above {bins[last].low:.2f} are right in {right[last] / rows[last]:.1%} (95%"
            f" interval {ends}); they are {rows[last] / evidence.scores.rows:.1%} of all, so the rest can be left to"
            " people."
        )


def members_add(evidence: Evidence) -> Iterator[str]:
    """Several members are more accurate than the best one alone."""
    members = evidence.evaluation.members
    best = max(members, key=lambda member: member.accuracy)
    gain = evidence.scores.accuracy - best.accuracy
    if len(members) > 1 and gain > 0:
        yield (
            f"{len(members)} networks together are {points(gain)} more accurate than the best of them alone"
            f"{_surely(best.against_all)}."
        )


def member_to_leave_out(evidence: Evidence) -> Iterator[str]:
    """Without one member, that of the least use, the others are as accurate or more so."""
    members = [(number, one) for number, one in enumerate(evidence.evaluation.members, 1) if one.share is not None]
    if not members:
        return
    number, member = min(members, key=lambda numbered: numbered[1].share or 0.0)
    if (member.share or 0.0) <= 0:
        fewer = round(-(member.share or 0.0) * evidence.scores.rows)
        more = f"{amount(fewer, 'image')} more" if fewer else "as many images"
        rest = "the other labels" if len(members) == 2 else "the others label"
        yield (
            f"Network {number} ({member.architecture}) can be left out: without it {rest} {more} right, of"
            f" {evidence.scores.rows:,}{_surely(member.against_others)}."
        )


def _surely(paired: Paired | None) -> str:
    """Return how sure a difference is, to be put behind it."""
    if paired is None:
        return ""
    chance = ": so small a difference can be chance" if paired.mcnemar_p >= _CHANCE else ""
    return f" (McNemar's p {paired.mcnemar_p:.2g}{chance})"


def _fitted_here(evidence: Evidence) -> str:
    """Return what to add to a figure of calibration on the rows that the temperature was fitted to."""
    fitted = any(member.temperature != 1 for member in evidence.evaluation.members)
    own = evidence.evaluation.split == "validation" and evidence.measured_where_trained
    return ", on the images that the temperature was fitted to" if fitted and own else ""


def _ece_by_chance(evidence: Evidence) -> float:
    """Return the calibration error expected of as many answers with these confidences, were they perfectly calibrated.

    In each bin the share of right answers then strays from the confidence c with standard deviation √(c(1-c)/n), whose
    mean size, of a normal distribution, is √(2/π) times that.
    """
    bins = [(one.rows, one.confidence) for one in evidence.evaluation.main.reliability if one.confidence is not None]
    strays = [math.sqrt(2 / math.pi * rows * max(0.0, c * (1 - c))) for rows, c in bins]
    return sum(strays) / sum(rows for rows, _ in bins)
