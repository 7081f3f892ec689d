"""An evaluation as a section of a report, and the labelled faces in it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fer_ray.learning.evaluation import (
    CONFUSION_FILE,
    MISTAKES_FILE,
    RELIABILITY_FILE,
    SAMPLES_FILE,
    Evaluation,
    Scores,
    read_evaluation,
)
from fer_ray.reporting.evaluation_text import accuracy_text
from fer_ray.reporting.html import Block, Face, Gallery, Section, Table, read_figure

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
    pq.write_table(pa.table({**columns, "png": [_png(image) for image in images]}, schema=_SAMPLES_SCHEMA), file)


def evaluation_section(folder: Path, shown_as: Path) -> Section:
    """Show an evaluation.

    Args:
        folder: where its files are.
        shown_as: where they are going to be, for a folder that is still being written.
    """
    evaluation = read_evaluation(folder)
    main = evaluation.tta[evaluation.main_tta]
    alt = f"Confusion matrix of the {evaluation.split} split; the table above gives each class's recall."
    blocks: list[Block] = [
        _facts(evaluation),
        _by_tta(evaluation),
        _by_class(main.official, f"By class, TTA {evaluation.main_tta}, {evaluation.split} split"),
        *read_figure(folder / CONFUSION_FILE, alt),
        *read_figure(folder / RELIABILITY_FILE, "Accuracy by confidence, before and after calibration."),
        *read_figure(folder / MISTAKES_FILE, "The most confident mistakes, with label and prediction.", is_chart=False),
        *_galleries(folder / SAMPLES_FILE),
    ]
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without images that are also in train" if clean else ""
    return Section(
        name=shown_as.name,
        what="Evaluation",
        path=str(shown_as),
        headline=(
            f"{accuracy_text(main.official)} accuracy on {evaluation.split}"
            f" with TTA {evaluation.main_tta}{without}; macro-F1 {main.official.macro_f1:.3f}."
        ),
        blocks=blocks,
        notes=evaluation.notes,
    )


def _facts(evaluation: Evaluation) -> Table:
    rows = [
        *(("Checkpoint", f"{member.checkpoint} ({member.architecture})") for member in evaluation.members),
        ("Dataset", evaluation.dataset),
        ("Split", f"{evaluation.split}, {evaluation.rows:,} images, {evaluation.leaked_rows:,} of them also in train"),
        ("Computed on", f"{evaluation.device}, {evaluation.precision}"),
    ]
    return Table("What was measured", (), rows)


def _by_tta(evaluation: Evaluation) -> Table:
    rows = []
    for name, measured in evaluation.tta.items():
        speed = f"{measured.images_per_s:,.0f}"
        rows.append((f"{name}, official split", *_cells(measured.official), speed))
        if measured.without_leaked and evaluation.leaked_rows:
            rows.append((f"{name}, without leaked images", *_cells(measured.without_leaked), speed))
    note = (
        "Brackets hold the accuracy's 95% interval (Wilson). Leaked images are those whose very pixels also stand in"
        " the training split. Macro-F1 is the plain mean of F1 over all classes."
    )
    return Table("By test-time augmentation", ("TTA", "Images", "Accuracy", "Macro-F1", "Images/s"), rows, note)


def _cells(scores: Scores) -> tuple[str, str, str]:
    return f"{scores.rows:,}", accuracy_text(scores), f"{scores.macro_f1:.3f}"


def _by_class(scores: Scores, caption: str) -> Table:
    rows = [
        (name, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", f"{one.support:,}")
        for name, one in scores.classes.items()
    ]
    return Table(caption, ("Class", "Precision", "Recall", "F1", "Images"), rows)


def _galleries(file: Path) -> list[Gallery]:
    if not file.is_file():
        return []
    faces = [
        Face(row["png"], row["label"], row["predicted"], row["confidence"]) for row in pq.read_table(file).to_pylist()
    ]
    note = "Spread evenly over the split's order, some of each class. The percentage is the prediction's probability."
    galleries = [
        Gallery("Predicted as labelled", [face for face in faces if face.is_correct], note),
        Gallery("Predicted otherwise", [face for face in faces if not face.is_correct]),
    ]
    return [gallery for gallery in galleries if gallery.faces]


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=True)
    return out.getvalue()
