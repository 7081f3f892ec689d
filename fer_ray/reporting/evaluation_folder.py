"""Write the folder of an evaluation: metrics, predictions, pictures, page and model card."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.inference.calibration import reliability_bins
from fer_ray.inference.predictor import Predictions
from fer_ray.inference.scores import (
    CONFUSION_FILE,
    METRICS_FILE,
    MISTAKES_FILE,
    PREDICTIONS_FILE,
    RELIABILITY_FILE,
    SAMPLES_FILE,
    Evaluation,
)
from fer_ray.reporting.evaluation import evaluation_section, spread, write_samples
from fer_ray.reporting.evaluation_pictures import save_confusion, save_mistakes, save_reliability
from fer_ray.reporting.html import render_page
from fer_ray.reporting.model_card import CARD_FILE, model_card
from fer_ray.storage.local import whole_folder
from fer_ray.storage.provenance import Start, record_start

_CORRECT_SAMPLES, _WRONG_SAMPLES = 2, 3  # of each class
_MISTAKES = 24


def write_evaluation(folder: Path, evaluation: Evaluation, rows: Split, predictions: Predictions, start: Start) -> None:
    """Write all files of an evaluation at once: a killed process leaves none of them.

    Args:
        folder: absent or empty.
        evaluation: contents of ``metrics.json``.
        rows: images and labels that were measured.
        predictions: for ``rows``, with the main test-time augmentation.
        start: the command that runs, for ``provenance.json``.
    """
    measured, title = evaluation.main, f"{evaluation.split}, TTA {evaluation.main_tta}"
    with whole_folder(folder) as partial:
        record_start(partial, start)
        (partial / METRICS_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        pq.write_table(_table(rows, predictions), partial / PREDICTIONS_FILE)
        save_confusion(np.array(measured.official.confusion), EMOTIONS, title, partial / CONFUSION_FILE)
        panels = {"temperature 1": reliability_bins(rows.labels, predictions.uncalibrated)}
        if any(member.temperature != 1 for member in evaluation.members):
            panels["calibrated"] = measured.reliability
        save_reliability(panels, title, partial / RELIABILITY_FILE)
        _write_mistakes(partial / MISTAKES_FILE, rows, predictions, title)
        _write_samples(partial / SAMPLES_FILE, rows, predictions)
        (partial / "report.html").write_text(render_page("Evaluation", [evaluation_section(partial, folder)]), "utf-8")
        (partial / CARD_FILE).write_text(model_card(partial, folder.name), "utf-8")


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


def _write_mistakes(file: Path, rows: Split, predictions: Predictions, title: str) -> None:
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions.labels != rows.labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    captions = [
        f"{EMOTIONS[rows.labels[row]]} →\n{EMOTIONS[predictions.labels[row]]} {confidence[row]:.1%}" for row in chosen
    ]
    if captions:
        what = f"The most confident of {len(wrong):,} mistakes, label → prediction; {title}"
        save_mistakes(rows.images[chosen], captions, what, file)


def _write_samples(file: Path, rows: Split, predictions: Predictions) -> None:
    right = predictions.labels == rows.labels
    chosen = [
        spread(np.flatnonzero((rows.labels == label) & (right == wanted)), count)
        for wanted, count in ((True, _CORRECT_SAMPLES), (False, _WRONG_SAMPLES))
        for label in range(NUM_CLASSES)
    ]
    numbers = np.concatenate(chosen)
    columns = {
        "id": [rows.ids[number] for number in numbers],
        "label": [EMOTIONS[label] for label in rows.labels[numbers]],
        "predicted": [EMOTIONS[label] for label in predictions.labels[numbers]],
        "confidence": predictions.probabilities[numbers].max(axis=1),
    }
    write_samples(file, columns, rows.images[numbers])
