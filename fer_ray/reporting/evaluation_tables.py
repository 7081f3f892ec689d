"""Tables of an evaluation, for its page, its model card and the terminal."""

from collections.abc import Sequence

import numpy as np

from fer_ray.console.text import amount
from fer_ray.inference.scores import Evaluation, Pair, Scores, wilson_interval
from fer_ray.reporting.html import Table

_CONFUSIONS = 8  # the most frequent ones


def describe(evaluation: Evaluation) -> str:
    """Describe an evaluation as plain text for the terminal."""
    names = list(dict.fromkeys(member.architecture for member in evaluation.members))
    title = names[0] if len(evaluation.members) == 1 else f"{len(evaluation.members)} networks ({', '.join(names)})"
    copies = f", {evaluation.leaked_rows:,} of them also in train" if evaluation.leaked_rows else ""
    title += f" on {evaluation.split}: {amount(evaluation.rows, 'image')}{copies}"
    tables = [by_tta(evaluation), by_class(evaluation)]
    tables += networks_and_pairs(evaluation) if evaluation.pairs else []
    return "\n\n".join(filter(None, [title, *(table.as_text() for table in tables), "\n".join(evaluation.notes)]))


def accuracy_text(scores: Scores | None) -> str:
    """Return the accuracy with its 95% interval, such as ``71.23% (69.7–72.7%)``; a dash without scores."""
    if scores is None:
        return "–"
    return f"{scores.accuracy:.2%} ({100 * scores.accuracy_low:.1f}–{scores.accuracy_high:.1%})"


def share_text(part: int, rows: int) -> str:
    """Return a share of rows with its 95% interval, such as ``42.3% (38.0–46.8%)``; a dash if there are no rows."""
    if not rows:
        return "–"
    low, high = wilson_interval(part, rows)
    return f"{part / rows:.1%} ({100 * low:.1f}–{high:.1%})"


def by_tta(evaluation: Evaluation) -> Table:
    """Show accuracy, speed and calibration for each test-time augmentation."""
    rows = [
        {
            "TTA": name,
            "Views": f"{one.views:.3g}",
            "Images/s": f"{one.images_per_s:,.0f}",
            "Accuracy (95%)": accuracy_text(one.official),
            **({"Without copies": accuracy_text(one.without_leaked)} if evaluation.leaked_rows else {}),
            "Balanced": f"{one.official.balanced_accuracy:.2%}",
            "Macro-F1": f"{one.official.macro_f1:.3f}",
            "NLL": f"{one.official.nll:.3f}",
            "ECE": f"{one.official.ece:.3f}",
        }
        for name, one in evaluation.tta.items()
    ]
    note = (
        "Test-time augmentation (TTA) averages the predictions for several views of an image. Brackets hold the 95%"
        " interval (Wilson). Balanced accuracy and macro-F1 are the means of recall and F1 over the classes. NLL is the"
        " mean negative log-likelihood, ECE the expected calibration error over 15 bins; for both, lower is better."
    )
    if evaluation.leaked_rows:
        note += " Copies are images with exactly the same pixels as an image of the training split."
    return Table.of("By test-time augmentation", rows, note)


def by_class(evaluation: Evaluation) -> Table:
    """Show precision, recall and F1 of each class."""
    scores = evaluation.main.official
    predicted = np.sum(scores.confusion, axis=0)
    rows = [
        {
            "Class": name,
            "Precision": f"{one.precision:.1%}" if predicted[label] else "–",
            "Recall (95%)": share_text(scores.confusion[label][label], one.support),
            "F1": f"{one.f1:.3f}",
            "Images": f"{one.support:,}",
        }
        for label, (name, one) in enumerate(scores.classes.items())
    ]
    return Table.of(f"By class, TTA {evaluation.main_tta}", rows, "Brackets hold the 95% interval (Wilson).")


def networks_and_pairs(evaluation: Evaluation) -> list[Table]:
    """Show the networks that predict together, each measured alone, and their pairs if there are several."""
    several = len(evaluation.members) > 1
    rows = [
        {
            "Network": f"{number}",
            "Architecture": member.architecture,
            "Parameters": f"{member.parameters:,}",
            "Epoch": f"{member.epoch}",
            "Temperature": f"{member.temperature:.3f}",
            "Accuracy": f"{member.accuracy:.2%}",
            "NLL": f"{member.nll:.3f}",
            **({"Gain, points": f"{100 * (member.share or 0):+.2f}"} if several else {}),
            "Checkpoint": member.checkpoint,
        }
        for number, member in enumerate(evaluation.members, 1)
    ]
    note = "Gain: accuracy of all networks together minus the accuracy without this one." if several else ""
    networks = Table.of(f"Networks, TTA {evaluation.main_tta}", rows, note)
    pairs = [pairs_table("networks", [row["Network"] for row in rows], evaluation.pairs)] if several else []
    return [networks, *pairs]


def pairs_table(of: str, names: Sequence[str], pairs: Sequence[Pair]) -> Table:
    """Show how classifiers differ, pair by pair, as ``compare_members`` returns them.

    ``of`` says what they are, such as ``networks``; ``names`` are in the order of the indices in ``pairs``.
    """
    rows = [
        {
            of.capitalize(): f"{names[pair.first]} and {names[pair.second]}",
            "Disagree": f"{pair.disagreement:.1%}",
            "Only first right": f"{pair.only_first_right:,}",
            "Only second right": f"{pair.only_second_right:,}",
            "McNemar p": f"{pair.mcnemar_p:.2g}",
        }
        for pair in pairs
    ]
    note = (
        "Disagree: share of images with different predictions. p: McNemar's exact two-sided test; a small p means that"
        " the difference in accuracy is unlikely to be chance."
    )
    return Table.of(f"Pairs of {of}", rows, note)


def confusions_table(evaluation: Evaluation) -> list[Table]:
    """Show the most frequent mistakes; return an empty list if there are none."""
    scores = evaluation.main.official
    names, counts = list(scores.classes), np.array(scores.confusion)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: min(_CONFUSIONS, np.count_nonzero(counts))]
    rows = [
        {
            "Label": names[label],
            "Predicted": names[predicted],
            "Images": f"{counts[label, predicted]:,}",
            "Share of the label's images": f"{counts[label, predicted] / totals[label]:.1%}",
        }
        for label, predicted in zip(*np.unravel_index(order, counts.shape), strict=True)
    ]
    note = f"These are {counts.flat[order].sum():,} of {counts.sum():,} mistakes."
    return [Table.of(f"Most frequent confusions, {evaluation.split} split", rows, note)] if rows else []
