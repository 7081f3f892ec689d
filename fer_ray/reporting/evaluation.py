"""Write the folder of an evaluation, and show it as a section of a page."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
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
from fer_ray.reporting.charts import evenly_spaced
from fer_ray.reporting.evaluation_pictures import save_confusion, save_reliability
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, read_figure, render_page
from fer_ray.reporting.model_card import CARD_FILE, model_card
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.storage.output import Output
from fer_ray.storage.provenance import Start, record_start

_CORRECT_SAMPLES, _MISTAKES = 2, 24  # in samples.parquet: correct ones of each class, mistakes in all


def write_evaluation(
    output: Output, evaluation: Evaluation, rows: Split, predictions: Predictions, start: Start
) -> None:
    """Write all files of an evaluation at once: a killed process leaves none of them.

    Args:
        output: absent or empty.
        evaluation: contents of ``metrics.json``.
        rows: images and labels that were measured.
        predictions: for ``rows``, with the main test-time augmentation.
        start: the command that runs, for ``provenance.json``.
    """
    measured, title = evaluation.main, f"{evaluation.split}, TTA {evaluation.main_tta}"
    with output.whole() as partial:
        record_start(partial, start)
        (partial / METRICS_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        pq.write_table(_table(rows, predictions), partial / PREDICTIONS_FILE)
        save_confusion(np.array(measured.official.confusion), EMOTIONS, title, partial / CONFUSION_FILE)
        panels = {"temperature 1": reliability_bins(rows.labels, predictions.uncalibrated)}
        if any(member.temperature != 1 for member in evaluation.members):
            panels["calibrated"] = measured.reliability
        save_reliability(panels, title, partial / RELIABILITY_FILE)
        _write_samples(partial / SAMPLES_FILE, rows, predictions)
        page = render_page("Evaluation", [evaluation_section(partial, output.path_or_url)])
        (partial / "report.html").write_text(page, "utf-8")
        (partial / CARD_FILE).write_text(model_card(partial, output.path.name), "utf-8")


def _table(rows: Split, predictions: Predictions) -> pa.Table:
    columns = {
        "id": rows.ids,
        "label": rows.labels.astype(np.int8),
        "predicted": predictions.labels.astype(np.int8),
        "confidence": predictions.probabilities.max(axis=1),
        **{f"p_{name}": predictions.probabilities[:, label] for label, name in enumerate(EMOTIONS)},
        "tta_std": predictions.tta_std,
        "leaked": rows.leaked,
    }
    return pa.table(columns)


def _write_samples(file: Path, rows: Split, predictions: Predictions) -> None:
    """Write the most confident mistakes and some correct predictions of each class."""
    confidence, right = predictions.probabilities.max(axis=1), predictions.labels == rows.labels
    wrong = np.flatnonzero(~right)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    correct = [np.flatnonzero((rows.labels == label) & right) for label in range(NUM_CLASSES)]
    numbers = np.concatenate([mistakes, *(evenly_spaced(of_class, _CORRECT_SAMPLES) for of_class in correct)])
    columns = {
        "id": [rows.ids[number] for number in numbers],
        "label": [EMOTIONS[label] for label in rows.labels[numbers]],
        "predicted": [EMOTIONS[label] for label in predictions.labels[numbers]],
        "confidence": confidence[numbers],
        "png": [png_of(image) for image in rows.images[numbers]],
    }
    pq.write_table(pa.table(columns), file)


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
    main = evaluation.main
    blocks: list[PageBlock] = [
        tables.by_tta(evaluation),
        tables.by_class(evaluation),
        tables.more_metrics(evaluation),
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
        *reproduce_blocks(folder, _facts(evaluation)),
    ]
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without copies of training images" if clean else ""
    headline = (
        f"{tables.accuracy_text(main.official)} accuracy on {evaluation.split} with TTA {evaluation.main_tta}{without};"
        f" macro-F1 {main.official.macro_f1:.3f}."
    )
    return PageSection(Path(path_or_url).name, "Evaluation", path_or_url, headline, blocks, evaluation.notes)


def _facts(evaluation: Evaluation) -> dict[str, str]:
    return {
        "Dataset": f"{evaluation.dataset}, fingerprint {evaluation.dataset_fingerprint[:16]}",
        "Computed on": f"{evaluation.device}, {evaluation.precision}",
        "Seed": "none: nothing is random",
    }


def _galleries(file: Path) -> list[Gallery]:
    if not file.is_file():
        return []
    faces = [
        GalleryFace(row["png"], row["label"], row["predicted"], row["confidence"])
        for row in pq.read_table(file).to_pylist()
    ]
    note = "The percentage is the probability of the predicted label."
    galleries = [
        Gallery("The most confident mistakes", [face for face in faces if not face.is_correct], note),
        Gallery("Some correct predictions of each class", [face for face in faces if face.is_correct], note),
    ]
    return [gallery for gallery in galleries if gallery.faces]
