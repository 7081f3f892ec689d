"""Tables of an evaluation, for its page, its model card and the terminal."""

from collections.abc import Callable, Sequence

import numpy as np

from fer_ray.console.text import amount
from fer_ray.inference.scores import Evaluation, Pair, Scores, wilson_interval
from fer_ray.reporting.html import Table

_CONFUSIONS, _PAIRS = 8, 10  # the most frequent confusions, and the pairs of networks in the terminal


def describe(evaluation: Evaluation) -> str:
    """Describe an evaluation as plain text for the terminal."""
    names = list(dict.fromkeys(member.architecture for member in evaluation.members))
    title = names[0] if len(evaluation.members) == 1 else f"{len(evaluation.members)} networks ({', '.join(names)})"
    copies = f", {evaluation.leaked_rows:,} of them also in train" if evaluation.leaked_rows else ""
    title += f" on {evaluation.split}: {amount(evaluation.rows, 'image')}{copies}"
    tables = [by_tta(evaluation), by_class(evaluation), more_metrics(evaluation)]
    tables += networks_and_pairs(evaluation, _PAIRS) if evaluation.pairs else []
    hint = f"… and {len(evaluation.pairs) - _PAIRS} more pairs in metrics.json" * (len(evaluation.pairs) > _PAIRS)
    parts = [title, *(table.as_text() for table in tables), hint, "\n".join(evaluation.notes)]
    return "\n\n".join(filter(None, parts))


def accuracy_text(scores: Scores) -> str:
    """Return the accuracy with its 95% interval, such as ``71.23% (69.7–72.7%)``."""
    return f"{scores.accuracy:.2%} ({100 * scores.accuracy_low:.1f}–{scores.accuracy_high:.1%})"


def share_text(part: int, rows: int) -> str:
    """Return a share of rows with its 95% interval, such as ``42.3% (38.0–46.8%)``; a dash if there are no rows."""
    if not rows:
        return "–"
    low, high = wilson_interval(part, rows)
    return f"{part / rows:.1%} ({100 * low:.1f}–{high:.1%})"


def by_tta(evaluation: Evaluation) -> Table:
    """Show accuracy, speed and calibration for each test-time augmentation."""
    rows = []
    for name, measured in evaluation.tta.items():
        scores, clean = measured.official, measured.without_leaked
        without = [accuracy_text(clean) if clean else "–"] if evaluation.leaked_rows else []
        speed = f"{measured.views:.3g}", f"{measured.images_per_s:,.0f}"
        rest = f"{scores.macro_f1:.3f}", f"{scores.nll:.3f}", f"{scores.ece:.3f}"
        rows.append((name, *speed, accuracy_text(scores), *without, *rest))
    columns = ["TTA", "Views", "Images/s", "Accuracy (95%)", "Without copies", "Macro-F1", "NLL", "ECE"]
    note = (
        "Test-time augmentation (TTA) averages the predictions for several views of an image, such as the image and its"
        " mirror image. Brackets hold the 95% interval (Wilson). Macro-F1 is the mean of F1 over the classes. NLL is"
        " the mean negative log-likelihood; ECE, the expected calibration error, is the mean distance between"
        " confidence and accuracy over 15 bins of confidence. For both, lower is better."
    )
    if evaluation.leaked_rows:
        note += " Copies are images with exactly the same pixels as an image of the training split."
    else:
        columns.remove("Without copies")
    return Table("By test-time augmentation", columns, rows, note)


def by_class(evaluation: Evaluation) -> Table:
    """Show precision, recall and F1 of each class."""
    scores = evaluation.main.official
    predicted = np.sum(scores.confusion, axis=0)
    rows = [
        (
            name,
            f"{one.precision:.1%}" if predicted[label] else "–",
            share_text(scores.confusion[label][label], one.support),
            f"{one.f1:.3f}",
            f"{one.support:,}",
        )
        for label, (name, one) in enumerate(scores.classes.items())
    ]
    note = (
        "Precision: of the images with this prediction, the share with this label. Recall: of the images with this"
        " label, the share with this prediction, with its 95% interval (Wilson). F1 is their harmonic mean."
    )
    columns = ("Class", "Precision", "Recall (95%)", "F1", "Images")
    return Table(f"By class, TTA {evaluation.main_tta}", columns, rows, note)


def more_metrics(evaluation: Evaluation) -> Table:
    """Show the remaining metrics, with all images and without copies of training images."""
    main = evaluation.main
    measured = {"All images": main.official}
    if main.without_leaked and evaluation.leaked_rows:
        measured["Without copies"] = main.without_leaked
    metrics: dict[str, Callable[[Scores], str]] = {
        "Balanced accuracy": lambda scores: f"{scores.balanced_accuracy:.2%}",
        "Top-2 accuracy": lambda scores: f"{scores.top2_accuracy:.2%}",
        "Weighted F1": lambda scores: f"{scores.weighted_f1:.3f}",
        "Cohen's kappa": lambda scores: f"{scores.kappa:.3f}",
    }
    rows = [(title, *map(metric, measured.values())) for title, metric in metrics.items()]
    note = "Balanced accuracy is the mean of recall over the classes."
    if any(member.temperature != 1 for member in evaluation.members):
        blank = ["–"] * (len(measured) - 1)
        rows.append(("NLL before calibration", f"{main.nll_uncalibrated:.3f}", *blank))
        rows.append(("ECE before calibration", f"{main.ece_uncalibrated:.3f}", *blank))
        note += " Before calibration: with temperature 1."
    return Table(f"More metrics, TTA {evaluation.main_tta}", ("Metric", *measured), rows, note)


def networks_and_pairs(evaluation: Evaluation, most_pairs: int | None = None) -> list[Table]:
    """Show the networks that predict together, each measured alone, and their first pairs if there are several."""
    several = len(evaluation.members) > 1
    names = [f"{number}" for number in range(1, len(evaluation.members) + 1)]
    rows = [
        (
            name,
            member.architecture,
            f"{member.parameters:,}",
            f"{member.epoch}",
            f"{member.temperature:.3f}",
            f"{member.accuracy:.2%}",
            f"{member.nll:.3f}",
            *([f"{100 * (member.share or 0):+.2f}"] * several),
            member.checkpoint,
        )
        for name, member in zip(names, evaluation.members, strict=True)
    ]
    columns = ["Network", "Architecture", "Parameters", "Epoch", "Temperature", "Accuracy", "NLL"]
    columns += ["Gain, points"] * several + ["Checkpoint"]
    note = "Gain: accuracy of all networks together minus the accuracy without this one." if several else ""
    networks = Table(f"Networks, TTA {evaluation.main_tta}", columns, rows, note)
    return [networks, *([pairs_table("networks", names, evaluation.pairs[:most_pairs])] if several else [])]


def pairs_table(of: str, names: Sequence[str], pairs: Sequence[Pair]) -> Table:
    """Show how classifiers differ, pair by pair.

    Args:
        of: what the classifiers are, such as ``networks``.
        names: their names, in the order of the indices in ``pairs``.
        pairs: from ``compare_members``.
    """
    rows = [
        (
            f"{names[pair.first]} and {names[pair.second]}",
            f"{pair.disagreement:.1%}",
            f"{pair.only_first_right:,}",
            f"{pair.only_second_right:,}",
            f"{pair.mcnemar_p:.2g}",
        )
        for pair in pairs
    ]
    columns = (of.capitalize(), "Disagree", "Only first right", "Only second right", "McNemar p")
    note = (
        "Disagree: share of images with different predictions. p: McNemar's exact two-sided test; a small p means that"
        " the difference in accuracy is unlikely to be chance."
    )
    return Table(f"Pairs of {of}", columns, rows, note)


def confusions(scores: Scores) -> list[tuple[str, str, int, float]]:
    """Return the mistakes by label and prediction, the most frequent first.

    Returns:
        Label, prediction, images and their share of the label's images, for each non-zero cell of the confusion matrix
        beside its diagonal.
    """
    counts, names = np.array(scores.confusion), list(scores.classes)
    totals = counts.sum(axis=1)
    cells = [
        (names[true], names[predicted], int(count), float(count / totals[true]))
        for (true, predicted), count in np.ndenumerate(counts)
        if true != predicted and count
    ]
    return sorted(cells, key=lambda cell: -cell[2])


def confusions_table(evaluation: Evaluation) -> list[Table]:
    """Show the most frequent mistakes; return an empty list if there are none."""
    cells = confusions(evaluation.main.official)
    if not cells:
        return []
    top = cells[:_CONFUSIONS]
    rows = [(label, predicted, f"{count:,}", f"{share:.1%}") for label, predicted, count, share in top]
    mistakes = sum(count for _, _, count, _ in cells)
    note = f"These are {sum(count for _, _, count, _ in top):,} of {mistakes:,} mistakes."
    columns = ("Label", "Predicted", "Images", "Share of the label's images")
    return [Table(f"Most frequent confusions, {evaluation.split} split", columns, rows, note)]
