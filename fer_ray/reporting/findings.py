"""Sentences about an evaluation's figures, each function a rule: its docstring says when it speaks.

Rules about the rows and the training behind the figures are in ``findings_data``.
"""

from collections.abc import Iterator
from itertools import accumulate

import numpy as np

from fer_ray.reporting.evaluation import confusions
from fer_ray.reporting.evidence import Evidence, interval, majority, points

# Where a difference begins to matter to somebody who uses the network: a class found three times out of four or missed
# every second time, one mistake in ten of a label going to one other label, five points.
_WELL_FOUND, _OFTEN_MISSED, _OFTEN_CONFUSED, _FAR_APART = 0.75, 0.5, 0.1, 0.05
_CALIBRATED_ECE = 0.05
_OFTEN_WRONGLY_CHOSEN = 0.2
_SURE_ACCURACY, _SURE_SHARE = 0.9, 0.1
_CONFUSIONS_NAMED = 4


def better_than_one_answer(evidence: Evidence) -> Iterator[str]:
    """The interval lies above the share of the most frequent label."""
    scores, (name, share) = evidence.scores, majority(evidence.scores)
    if scores.accuracy_low > share:
        yield (
            f"{scores.accuracy:.1%} of {scores.rows:,} images are labelled right (95% interval"
            f" {scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}), where always answering {name} would reach"
            f" {share:.1%}; beyond chance the agreement is {scores.kappa:.2f} (Cohen's kappa, at most 1)."
        )


def not_better_than_one_answer(evidence: Evidence) -> Iterator[str]:
    """The interval reaches down to the share of the most frequent label."""
    scores, (name, share) = evidence.scores, majority(evidence.scores)
    if scores.accuracy_low <= share < 1:
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
            f"Not one of {scores.rows:,} images is labelled wrongly; on others of the same kind, the 95% interval"
            f" reaches down to {scores.accuracy_low:.1%}."
        )


def well_found_classes(evidence: Evidence) -> Iterator[str]:
    """Some, but not all, classes have a high F1."""
    classes = {name: one for name, one in evidence.scores.classes.items() if one.support}
    found = sorted((name for name in classes if classes[name].f1 >= _WELL_FOUND), key=lambda name: -classes[name].f1)
    if found and len(found) < len(classes):
        listed = ", ".join(f"{name} ({classes[name].f1:.2f})" for name in found)
        yield f"F1 is {_WELL_FOUND} or more for {len(found)} of {len(classes)} classes: {listed}."


def evenly_good(evidence: Evidence) -> Iterator[str]:
    """Classes count alike or by their rows: it makes little difference."""
    scores, (_, share) = evidence.scores, majority(evidence.scores)
    if abs(scores.accuracy - scores.balanced_accuracy) < _FAR_APART / 2 and scores.accuracy_low > share:
        yield (
            f"Rare and frequent classes fare alike: counted evenly, accuracy is {scores.balanced_accuracy:.1%}, within"
            f" {points(_FAR_APART / 2)} of the {scores.accuracy:.1%} by rows."
        )


def missed_classes(evidence: Evidence) -> Iterator[str]:
    """More rows of a class are missed than found."""
    for name, one in evidence.scores.classes.items():
        if one.support and one.recall < _OFTEN_MISSED:
            found = round(one.recall * one.support)
            yield (
                f"{name}: {found:,} of {one.support:,} images are found (recall {one.recall:.2f}, 95% interval"
                f" {interval(found, one.support)}), so that most are missed."
            )


def frequent_confusions(evidence: Evidence) -> Iterator[str]:
    """A tenth or more of a label's rows get the same other label."""
    often = [cell for cell in confusions(evidence.scores) if cell[3] >= _OFTEN_CONFUSED]
    for label, predicted, count, share in often[:_CONFUSIONS_NAMED]:
        support = evidence.scores.classes[label].support
        yield f"{label} is taken for {predicted} in {count:,} of {support:,} images ({share:.1%})."
    if len(often) > _CONFUSIONS_NAMED:
        rest = ", ".join(
            f"{label} for {predicted} ({share:.1%})" for label, predicted, _, share in often[_CONFUSIONS_NAMED:]
        )
        yield f"Also taken for one other label in {_OFTEN_CONFUSED:.0%} or more of their images: {rest}."


def wrongly_frequent_answers(evidence: Evidence) -> Iterator[str]:
    """A label is given much more or less often than it stands."""
    counts = np.array(evidence.scores.confusion)
    for number, (name, one) in enumerate(evidence.scores.classes.items()):
        given = int(counts[:, number].sum())
        if one.support and abs(given / one.support - 1) >= _OFTEN_WRONGLY_CHOSEN:
            way = "more" if given > one.support else "less"
            yield (
                f"{name} is answered {given:,} times where {one.support:,} images have that label:"
                f" {abs(given / one.support - 1):.0%} {way} often."
            )


def uneven(evidence: Evidence) -> Iterator[str]:
    """Counting classes alike lowers the accuracy."""
    scores = evidence.scores
    if scores.accuracy - scores.balanced_accuracy >= _FAR_APART:
        yield (
            f"Rare classes fare worse: counted evenly over classes, accuracy falls from {scores.accuracy:.1%} to"
            f" {scores.balanced_accuracy:.1%}, and macro-F1 is {scores.macro_f1:.3f}."
        )


def believable(evidence: Evidence) -> Iterator[str]:
    """Confidence lies near the share of right answers."""
    scores = evidence.scores
    if scores.ece <= _CALIBRATED_ECE:
        yield (
            f"Confidence can be taken at its word: it lies {points(scores.ece)} from the share of right answers on"
            " average (expected calibration error)."
        )


def calibration_helped(evidence: Evidence) -> Iterator[str]:
    """The temperature lowered the calibration error."""
    before, after = evidence.evaluation.main.ece_uncalibrated, evidence.scores.ece
    if before - after >= 0.005:
        values = ", ".join(f"{member.temperature:.2f}" for member in evidence.evaluation.members)
        yield (
            f"Temperature scaling (T = {values}) lowers the expected calibration error from {before:.3f} to"
            f" {after:.3f}."
        )


def not_believable(evidence: Evidence) -> Iterator[str]:
    """Confidence lies far from the share of right answers."""
    scores = evidence.scores
    if scores.ece > _CALIBRATED_ECE:
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
    if len(tta) < 2:
        return
    plain = min(tta, key=lambda name: tta[name].views)
    best = max((name for name in tta if name != plain), key=lambda name: tta[name].official.accuracy)
    gain = tta[best].official.accuracy - tta[plain].official.accuracy
    slower = tta[plain].images_per_s / tta[best].images_per_s
    speeds = f"{tta[best].images_per_s:,.0f} instead of {tta[plain].images_per_s:,.0f} images/s"
    if gain > 0:
        within = tta[best].official.accuracy <= tta[plain].official.accuracy_high
        doubt = f"; that lies within the 95% interval of {plain}" if within else ""
        yield (
            f"TTA {best} raises accuracy over {plain} by {points(gain)}, to {tta[best].official.accuracy:.1%}, and"
            f" takes {slower:.1f} times as long ({speeds}){doubt}."
        )
    else:
        yield (
            f"TTA can be left out: {best}, the best of the others, is {points(gain)} below {plain} and takes"
            f" {slower:.1f} times as long ({speeds})."
        )


def second_answer(evidence: Evidence) -> Iterator[str]:
    """The label is often the second answer."""
    scores = evidence.scores
    if scores.top2_accuracy - scores.accuracy >= 2 * _FAR_APART:
        yield (
            f"Showing the two most probable labels holds the right one in {scores.top2_accuracy:.1%}, against"
            f" {scores.accuracy:.1%} with one."
        )


def sure_answers(evidence: Evidence) -> Iterator[str]:
    """Above some confidence, nine answers of ten are right, though not of all."""
    if evidence.scores.accuracy >= _SURE_ACCURACY:
        return
    bins = [one for one in reversed(evidence.evaluation.main.reliability) if one.rows]
    rows = list(accumulate(one.rows for one in bins))
    right = list(accumulate(one.rows * (one.accuracy or 0.0) for one in bins))
    sure = [number for number in range(len(bins)) if right[number] >= _SURE_ACCURACY * rows[number]]
    if sure and rows[sure[-1]] >= _SURE_SHARE * evidence.scores.rows:
        last = sure[-1]
        yield (
            f"Answers with a confidence above {bins[last].low:.2f} are right in {right[last] / rows[last]:.1%}; they"
            f" are {rows[last] / evidence.scores.rows:.1%} of all, so the rest can be left to people."
        )


def members_add(evidence: Evidence) -> Iterator[str]:
    """Several members are more accurate than the best one alone."""
    members = evidence.evaluation.members
    gain = evidence.scores.accuracy - max(member.accuracy for member in members)
    if len(members) > 1 and gain > 0:
        yield f"{len(members)} networks together are {points(gain)} more accurate than the best of them alone."


def members_to_leave_out(evidence: Evidence) -> Iterator[str]:
    """Without a member, the others are as accurate or more so."""
    for number, member in enumerate(evidence.evaluation.members, 1):
        if member.share is not None and member.share <= 0:
            yield (
                f"Network {number} ({member.architecture}) can be left out: without it the others are"
                f" {'as' if member.share == 0 else points(member.share) + ' more'} accurate"
                f"{' as with it' if member.share == 0 else ''}."
            )
