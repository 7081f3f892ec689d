"""Write the folder of an evaluation: metrics, predictions, pictures, page and model card."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
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
)
from fer_ray.reporting.charts import evenly_spaced
from fer_ray.reporting.evaluation import evaluation_section
from fer_ray.reporting.evaluation_pictures import save_confusion, save_reliability
from fer_ray.reporting.html import render_page
from fer_ray.reporting.model_card import CARD_FILE, model_card
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
        (partial / "report.html").write_text(
            render_page("Evaluation", [evaluation_section(partial, output.path_or_url)]), "utf-8"
        )
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
