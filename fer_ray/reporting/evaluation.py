"""Write the folder of an evaluation, and show it as a section of a page."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.images.decode import png_of
from fer_ray.inference.calibration import reliability_bins
from fer_ray.inference.predictor import Predictions
from fer_ray.inference.scores import (
    CONFUSION_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    RELIABILITY_FILE,
    SAMPLES_FILE,
    Evaluation,
    read_evaluation,
)
from fer_ray.reporting import evaluation_tables as tables
from fer_ray.reporting.evaluation_pictures import save_confusion, save_reliability
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, read_figure, render_page
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.storage.output import Output
from fer_ray.storage.provenance import Start, record_start

_MISTAKES = 24  # in samples.parquet


def write_evaluation(
    output: Output, evaluation: Evaluation, rows: Split, predictions: Predictions, card: str, start: Start
) -> None:
    """Write all files of an evaluation at once: a killed process leaves none of them.

    Args:
        output: absent or empty.
        evaluation: contents of ``metrics.json``.
        rows: images and labels that were measured.
        predictions: for ``rows``, with the main test-time augmentation.
        card: the model card.
        start: the command that runs, for ``provenance.json``.
    """
    measured, title = evaluation.main, f"{evaluation.split}, TTA {evaluation.main_tta}"
    with output.whole() as partial:
        record_start(partial, start)
        (partial / METRICS_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        pq.write_table(_table(rows, predictions), partial / PREDICTIONS_FILE)
        pq.write_table(_mistakes(rows, predictions), partial / SAMPLES_FILE)
        save_confusion(np.array(measured.official.confusion), EMOTIONS, title, partial / CONFUSION_FILE)
        panels = {"temperature 1": reliability_bins(rows.labels, predictions.uncalibrated)}
        if any(member.temperature != 1 for member in evaluation.members):
            panels["calibrated"] = measured.reliability
        save_reliability(panels, title, partial / RELIABILITY_FILE)
        page = render_page("Evaluation", [evaluation_section(partial, output.path_or_url)])
        (partial / "report.html").write_text(page, "utf-8")
        (partial / CARD_FILE).write_text(card, "utf-8")


def _table(rows: Split, predictions: Predictions) -> pa.Table:
    columns = {
        "id": rows.ids,
        "label": rows.labels.astype(np.int8),
        "predicted": predictions.labels.astype(np.int8),
        "confidence": predictions.confidence,
        **{f"p_{name}": predictions.probabilities[:, label] for label, name in enumerate(EMOTIONS)},
        "tta_std": predictions.tta_std,
        "leaked": rows.leaked,
    }
    return pa.table(columns)


def _mistakes(rows: Split, predictions: Predictions) -> pa.Table:
    """Return the most confident mistakes."""
    wrong = np.flatnonzero(predictions.labels != rows.labels)
    numbers = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_MISTAKES]
    columns = {
        "id": [rows.ids[number] for number in numbers],
        "label": [EMOTIONS[label] for label in rows.labels[numbers]],
        "predicted": [EMOTIONS[label] for label in predictions.labels[numbers]],
        "confidence": predictions.confidence[numbers],
        "png": [png_of(image) for image in rows.images[numbers]],
    }
    return pa.table(columns)


def evaluation_section(folder: Path, path_or_url: str) -> PageSection:
    """Show an evaluation.

    Args:
        folder: where its files are.
        path_or_url: of the folder, for the page; or of the folder that ``folder`` will become.

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
    facts = {
        "Dataset": f"{evaluation.dataset}, fingerprint {evaluation.dataset_fingerprint[:16]}",
        "Computed on": f"{evaluation.device}, {evaluation.precision}",
        "Seed": "none: nothing is random",
    }
    blocks: list[PageBlock] = [
        tables.by_tta(evaluation),
        tables.by_class(evaluation),
        *tables.confusions_table(evaluation),
        *read_figure(
            folder / CONFUSION_FILE,
            f"Confusion matrix of the {evaluation.split} split; the table above has its largest cells.",
            "Confusion matrix",
        ),
        *read_figure(
            folder / RELIABILITY_FILE,
            "Reliability diagram: accuracy by confidence; the first table has its summary, ECE.",
            "Reliability: accuracy of the predictions in each bin of confidence",
        ),
        *_galleries(folder / SAMPLES_FILE),
        *tables.networks_and_pairs(evaluation),
        *reproduce_blocks(folder, facts),
    ]
    main = evaluation.main
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without copies of training images" if clean else ""
    headline = (
        f"{tables.accuracy_text(main.official)} accuracy on {evaluation.split} with TTA {evaluation.main_tta}{without};"
        f" macro-F1 {main.official.macro_f1:.3f}."
    )
    return PageSection(Path(path_or_url).name, "Evaluation", path_or_url, headline, blocks, evaluation.notes)


def _galleries(file: Path) -> list[Gallery]:
    faces = [
        GalleryFace(row["png"], row["label"], row["predicted"], row["confidence"])
        for row in (pq.read_table(file).to_pylist() if file.is_file() else [])
    ]
    note = "The percentage is the probability of the predicted label."
    return [Gallery("The most confident mistakes", faces, note)] if faces else []
