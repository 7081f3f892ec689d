"""An evaluation as a section of a report, and the labelled faces in it."""

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
    """Return ``count`` of the rows, evenly spread over their order, or all where there are fewer."""
    chosen: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return chosen


def write_samples(file: Path, columns: Mapping[str, Sequence[object]], images: np.ndarray) -> None:
    """Write ``samples.parquet``: id, label, predicted, confidence and the picture as PNG bytes.

    Args:
        file: where to.
        columns: the first four, labels by name.
        images: uint8, n × H × W.
    """
    pq.write_table(pa.table({**columns, "png": [png_of(image) for image in images]}, schema=_SAMPLES_SCHEMA), file)


def evaluation_section(folder: Path, path_or_url: str) -> PageSection:
    """Show an evaluation.

    Args:
        folder: where its files are.
        path_or_url: of the folder, or of the folder that it will become.
    """
    evaluation = read_evaluation(folder)
    listed = pq.read_metadata(folder / PREDICTIONS_FILE).num_rows
    if listed != evaluation.rows:
        raise DataError(
            f"{folder / PREDICTIONS_FILE}: holds {listed} rows, {METRICS_FILE} says {evaluation.rows}. Run"
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
            f"Confusion matrix of the {evaluation.split} split; the table of confusions has its largest cells.",
        ),
        _calibration(evaluation),
        *read_figure(
            folder / RELIABILITY_FILE,
            "Reliability diagram: share of right predictions by confidence; the table above sums it up.",
        ),
        *read_figure(
            folder / MISTAKES_FILE,
            "Faces of the most confident mistakes, each with its label, its prediction and the confidence.",
            "The most confident mistakes",
            is_chart=False,
        ),
        *_galleries(folder / SAMPLES_FILE),
        *reproduce_blocks(folder, _decides(evaluation)),
    ]
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without images that are also in train" if clean else ""
    headline = (
        f"{accuracy_text(main.official)} accuracy on {evaluation.split} with TTA {evaluation.main_tta}{without};"
        f" macro-F1 {main.official.macro_f1:.3f}."
    )
    return PageSection(Path(path_or_url).name, "Evaluation", path_or_url, headline, blocks, evaluation.notes)


def confusions(scores: Scores) -> list[tuple[str, str, int, float]]:
    """Return the cells beside the diagonal that hold rows: label, prediction, rows, their share of the label's rows.

    The fullest cells come first.
    """
    counts, names = np.array(scores.confusion), list(scores.classes)
    totals = counts.sum(axis=1)
    cells = [
        (names[true], names[predicted], int(count), float(count / totals[true]))
        for (true, predicted), count in np.ndenumerate(counts)
        if true != predicted and count
    ]
    return sorted(cells, key=lambda cell: -cell[2])


def _decides(evaluation: Evaluation) -> dict[str, str]:
    several = len(evaluation.members) > 1
    return {
        **{
            f"Checkpoint {number}" if several else "Checkpoint": member.checkpoint
            for number, member in enumerate(evaluation.members, 1)
        },
        "Dataset": f"{evaluation.dataset}, fingerprint {evaluation.dataset_fingerprint[:16]}",
        "Computed on": f"{evaluation.device}, {evaluation.precision}",
        "Seed": "none: nothing is drawn at random",
    }


def _by_tta(evaluation: Evaluation) -> Table:
    rows = []
    for name, measured in evaluation.tta.items():
        more = f"{measured.views:.3g}", f"{measured.images_per_s:,.0f}"
        rows.append((f"{name}, official split", *_cells(measured.official), *more))
        if measured.without_leaked and evaluation.leaked_rows:
            rows.append((f"{name}, without leaked images", *_cells(measured.without_leaked), *more))
    note = (
        "Brackets hold the accuracy's 95% interval (Wilson). Macro-F1 is the plain mean of F1 over the classes"
        " that have images."
    )
    if evaluation.leaked_rows:
        note += " Leaked images are those whose very pixels also stand in the training split."
    columns = ("TTA", "Images", "Accuracy", "Macro-F1", "Views", "Images/s")
    return Table("By test-time augmentation", columns, rows, note)


def _cells(scores: Scores) -> tuple[str, str, str]:
    return f"{scores.rows:,}", accuracy_text(scores), f"{scores.macro_f1:.3f}"


def _all_figures(evaluation: Evaluation) -> Table:
    main = evaluation.main
    measured = {"Official split": main.official}
    if main.without_leaked and evaluation.leaked_rows:
        measured["Without leaked"] = main.without_leaked
    figures: dict[str, Callable[[Scores], str]] = {
        "Balanced accuracy": lambda scores: f"{scores.balanced_accuracy:.2%}",
        "Top-2 accuracy": lambda scores: f"{scores.top2_accuracy:.2%}",
        "Weighted F1": lambda scores: f"{scores.weighted_f1:.3f}",
        "Cohen's kappa": lambda scores: f"{scores.kappa:.3f}",
        "Negative log-likelihood": lambda scores: f"{scores.nll:.3f}",
    }
    rows = [(title, *map(figure, measured.values())) for title, figure in figures.items()]
    return Table(f"Further figures, TTA {evaluation.main_tta}", ("Figure", *measured), rows)


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
    columns = ("Member", "Architecture", "Parameters", "Epoch", "Temperature", "Accuracy", "NLL", "Adds, points")
    note = "Adds: the accuracy of all members minus that without this one." if len(rows) > 1 else ""
    tables = [Table("What was measured", columns, rows, note)]
    if evaluation.pairs:
        numbers = [f"{number}" for number in range(1, len(rows) + 1)]
        tables.append(pairs_table("members", numbers, evaluation.pairs))
    return tables


def pairs_table(of: str, names: Sequence[str], pairs: Sequence[Pair]) -> Table:
    """Show how each two of some classifiers differ.

    Args:
        of: what they are, such as ``members``.
        names: of all, in the order of the pairs' indices.
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
    columns = (of.capitalize(), "Predict otherwise", "Only the first right", "Only the second right", "p")
    note = "p is McNemar's exact two-sided test that both are right equally often."
    return Table(f"Pairs of {of}", columns, rows, note)


def _confusions(evaluation: Evaluation, scores: Scores) -> list[Table]:
    cells = confusions(scores)
    if not cells:
        return []
    rows = [
        (label, predicted, f"{count:,}", f"{share:.1%}") for label, predicted, count, share in cells[:_CONFUSIONS_SHOWN]
    ]
    shown = sum(count for _, _, count, _ in cells[:_CONFUSIONS_SHOWN])
    note = f"These hold {shown:,} of all {sum(count for _, _, count, _ in cells):,} mistakes."
    columns = ("Label", "Predicted", "Images", "Share of the label")
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
        "ECE, the expected calibration error, is how far confidence lies from the share of right predictions, on"
        " average over 15 bins; NLL is the mean negative log-likelihood. Before: as the network gives them; after: with"
        " its temperature."
    )
    columns = ("TTA", "ECE before", "ECE after", "NLL before", "NLL after")
    return Table("Calibration, official split", columns, rows, note)


def _galleries(file: Path) -> list[Gallery]:
    if not file.is_file():
        return []
    faces = [
        GalleryFace(row["png"], row["label"], row["predicted"], row["confidence"])
        for row in pq.read_table(file).to_pylist()
    ]
    note = "Spread evenly over the split's order, some of each class. The percentage is the prediction's probability."
    galleries = [
        Gallery("Predicted as labelled", [face for face in faces if face.is_correct], note),
        Gallery("Predicted otherwise", [face for face in faces if not face.is_correct]),
    ]
    return [gallery for gallery in galleries if gallery.faces]
