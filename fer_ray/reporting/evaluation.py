"""Show an evaluation as a section of a page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.errors import DataError
from fer_ray.images.decode import png_of
from fer_ray.inference.scores import (
    CONFUSION_FILE,
    METRICS_FILE,
    MISTAKES_FILE,
    PREDICTIONS_FILE,
    RELIABILITY_FILE,
    SAMPLES_FILE,
    Evaluation,
    Pair,
    Scores,
    read_evaluation,
)
from fer_ray.reporting.evaluation_text import accuracy_text
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, Table, read_figure
from fer_ray.reporting.reproduce import reproduce_blocks

_CONFUSIONS_SHOWN = 8
_SAMPLES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("confidence", pa.float32()),
        ("png", pa.binary()),
    ]
)


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of the rows at even distances, or all rows if there are fewer."""
    chosen: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return chosen


def write_samples(file: Path, columns: Mapping[str, Sequence[object]], images: np.ndarray) -> None:
    """Write ``samples.parquet``: id, label, predicted, confidence and the image as PNG bytes.

    Args:
        file: the file to write.
        columns: n values for each of the first four; labels are names.
        images: uint8, n × H × W.
    """
    pq.write_table(pa.table({**columns, "png": [png_of(image) for image in images]}, schema=_SAMPLES_SCHEMA), file)


def evaluation_section(folder: Path, output: Path) -> PageSection:
    """Show an evaluation.

    Args:
        folder: where its files are.
        output: the path that the page names. It differs from ``folder`` while the files are being written.

    Raises:
        DataError: a file is damaged.
    """
    evaluation = read_evaluation(folder)
    listed = pq.read_metadata(folder / PREDICTIONS_FILE).num_rows
    if listed != evaluation.rows:
        raise DataError(
            f"{folder / PREDICTIONS_FILE}: holds {listed} rows, but {METRICS_FILE} says {evaluation.rows}. Run"
            " `fer-ray evaluate` again."
        )
    main = evaluation.main
    blocks: list[PageBlock] = [
        _by_tta(evaluation),
        _all_figures(evaluation),
        _by_class(main.official, f"By class, TTA {evaluation.main_tta}, {evaluation.split} split"),
        *_members(evaluation),
        *_confusions(evaluation, main.official),
        *read_figure(
            folder / CONFUSION_FILE,
            f"Confusion matrix of the {evaluation.split} split; the table above has its largest cells.",
        ),
        _calibration(evaluation),
        *read_figure(
            folder / RELIABILITY_FILE,
            "Reliability diagram: accuracy by confidence; the table above has its summary.",
        ),
        *read_figure(
            folder / MISTAKES_FILE,
            "The most confident mistakes: faces with label, prediction and confidence.",
            "The most confident mistakes",
            is_chart=False,
        ),
        *_galleries(folder / SAMPLES_FILE),
        *reproduce_blocks(folder, _facts(evaluation)),
    ]
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without copies of training images" if clean else ""
    headline = (
        f"{accuracy_text(main.official)} accuracy on {evaluation.split} with TTA {evaluation.main_tta}{without};"
        f" macro-F1 {main.official.macro_f1:.3f}."
    )
    return PageSection(output.name, "Evaluation", str(output), headline, blocks, evaluation.notes)


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


def _facts(evaluation: Evaluation) -> dict[str, str]:
    several = len(evaluation.members) > 1
    return {
        **{
            f"Checkpoint {number}" if several else "Checkpoint": member.checkpoint
            for number, member in enumerate(evaluation.members, 1)
        },
        "Dataset": f"{evaluation.dataset}, fingerprint {evaluation.dataset_fingerprint[:16]}",
        "Computed on": f"{evaluation.device}, {evaluation.precision}",
        "Seed": "none: nothing is random",
    }


def _by_tta(evaluation: Evaluation) -> Table:
    rows = []
    for name, measured in evaluation.tta.items():
        more = f"{measured.views:.3g}", f"{measured.images_per_s:,.0f}"
        rows.append((f"{name}, all images", *_cells(measured.official), *more))
        if measured.without_leaked and evaluation.leaked_rows:
            rows.append((f"{name}, without copies", *_cells(measured.without_leaked), *more))
    note = (
        "Test-time augmentation (TTA) averages the predictions for several views of an image, such as the image and its"
        " mirror image. Brackets hold the 95% interval of the accuracy (Wilson). Macro-F1 is the mean of F1 over the"
        " classes."
    )
    if evaluation.leaked_rows:
        note += " Copies are images with exactly the same pixels as an image of the training split."
    columns = ("TTA", "Images", "Accuracy", "Macro-F1", "Views", "Images/s")
    return Table("By test-time augmentation", columns, rows, note)


def _cells(scores: Scores) -> tuple[str, str, str]:
    return f"{scores.rows:,}", accuracy_text(scores), f"{scores.macro_f1:.3f}"


def _all_figures(evaluation: Evaluation) -> Table:
    main = evaluation.main
    measured = {"All images": main.official}
    if main.without_leaked and evaluation.leaked_rows:
        measured["Without copies"] = main.without_leaked
    figures: dict[str, Callable[[Scores], str]] = {
        "Balanced accuracy": lambda scores: f"{scores.balanced_accuracy:.2%}",
        "Top-2 accuracy": lambda scores: f"{scores.top2_accuracy:.2%}",
        "Weighted F1": lambda scores: f"{scores.weighted_f1:.3f}",
        "Cohen's kappa": lambda scores: f"{scores.kappa:.3f}",
        "Negative log-likelihood": lambda scores: f"{scores.nll:.3f}",
    }
    rows = [(title, *map(figure, measured.values())) for title, figure in figures.items()]
    return Table(f"More metrics, TTA {evaluation.main_tta}", ("Metric", *measured), rows)


def _by_class(scores: Scores, caption: str) -> Table:
    rows = [
        (name, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", f"{one.support:,}")
        for name, one in scores.classes.items()
    ]
    return Table(caption, ("Class", "Precision", "Recall", "F1", "Images"), rows)


def _members(evaluation: Evaluation) -> list[Table]:
    rows = [
        (
            f"{number}",
            member.architecture,
            f"{member.parameters / 1e6:.2f} M",
            f"{member.epoch}",
            f"{member.temperature:.3f}",
            f"{member.accuracy:.2%}",
            f"{member.nll:.3f}",
            "–" if member.share is None else f"{100 * member.share:+.2f}",
        )
        for number, member in enumerate(evaluation.members, 1)
    ]
    columns = ("Network", "Architecture", "Parameters", "Epoch", "Temperature", "Accuracy", "NLL", "Gain, points")
    note = "Gain: accuracy of all networks together minus the accuracy without this one." if len(rows) > 1 else ""
    tables = [Table("Networks", columns, rows, note)]
    if evaluation.pairs:
        numbers = [f"{number}" for number in range(1, len(rows) + 1)]
        tables.append(pairs_table("networks", numbers, evaluation.pairs))
    return tables


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
            f"{pair.mcnemar_p:.3g}",
        )
        for pair in pairs
    ]
    columns = (of.capitalize(), "Disagree", "Only first right", "Only second right", "p")
    note = (
        "Disagree: share of images with different predictions. p: McNemar's exact two-sided test; a small p means that"
        " the difference in accuracy is unlikely to be chance."
    )
    return Table(f"Pairs of {of}", columns, rows, note)


def _confusions(evaluation: Evaluation, scores: Scores) -> list[Table]:
    cells = confusions(scores)
    if not cells:
        return []
    rows = [
        (label, predicted, f"{count:,}", f"{share:.1%}") for label, predicted, count, share in cells[:_CONFUSIONS_SHOWN]
    ]
    shown = sum(count for _, _, count, _ in cells[:_CONFUSIONS_SHOWN])
    note = f"These are {shown:,} of {sum(count for _, _, count, _ in cells):,} mistakes."
    columns = ("Label", "Predicted", "Images", "Share of the label's images")
    return [Table(f"Most frequent confusions, {evaluation.split} split", columns, rows, note)]


def _calibration(evaluation: Evaluation) -> Table:
    rows = [
        (
            name,
            f"{measured.ece_uncalibrated:.3f}",
            f"{measured.official.ece:.3f}",
            f"{measured.nll_uncalibrated:.3f}",
            f"{measured.official.nll:.3f}",
        )
        for name, measured in evaluation.tta.items()
    ]
    note = (
        "ECE, the expected calibration error, is the mean distance between confidence and accuracy over 15 bins of"
        " confidence. NLL is the mean negative log-likelihood. For both, lower is better. Before: temperature 1; after:"
        " the checkpoint's temperature."
    )
    columns = ("TTA", "ECE before", "ECE after", "NLL before", "NLL after")
    return Table("Calibration", columns, rows, note)


def _galleries(file: Path) -> list[Gallery]:
    if not file.is_file():
        return []
    faces = [
        GalleryFace(row["png"], row["label"], row["predicted"], row["confidence"])
        for row in pq.read_table(file).to_pylist()
    ]
    note = "Some images of each class. The percentage is the probability of the predicted label."
    galleries = [
        Gallery("Correct predictions", [face for face in faces if face.is_correct], note),
        Gallery("Wrong predictions", [face for face in faces if not face.is_correct]),
    ]
    return [gallery for gallery in galleries if gallery.faces]
