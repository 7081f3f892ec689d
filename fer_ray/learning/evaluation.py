"""What an evaluation measures: the contents of ``metrics.json``, computed with scikit-learn."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.errors import DataError

FORMAT_VERSION = 1
METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.parquet"
CONFUSION_FILE, SAMPLES_FILE = "confusion.png", "samples.parquet"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassScores(_Part):
    """Figures of one class, 0 to 1; a ratio without a denominator is 0."""

    precision: float
    recall: float
    f1: float
    support: int = Field(description="Rows with this label.")


class Scores(_Part):
    """Figures over some rows of a split."""

    rows: int
    accuracy: float = Field(description="Share of rows whose most probable label is right, 0 to 1.")
    standard_error: float = Field(description="Of the accuracy: sqrt(p (1 - p) / rows).")
    macro_f1: float = Field(description="Plain mean of F1 over all classes, 0 to 1.")
    classes: dict[str, ClassScores] = Field(description="By name, csv order.")
    confusion: list[list[int]] = Field(description="Rows counted by true (first) and predicted label, csv order.")


class TtaScores(_Part):
    """Figures of one test-time augmentation."""

    official: Scores = Field(description="Over every labelled row of the split.")
    without_leaked: Scores | None = Field(description="Without rows that also stand in train; null if none is left.")
    images_per_s: float = Field(description="Prediction alone, on this machine, images in memory.")


class Evaluation(_Part):
    """The contents of ``metrics.json``."""

    format_version: int = FORMAT_VERSION
    fer_ray_version: str
    checkpoint: str
    architecture: str
    dataset: str
    dataset_fingerprint: str
    split: str
    rows: int = Field(description="Labelled rows of the split.")
    leaked_rows: int = Field(description="Those of them whose pixels also stand in train.")
    label_names: list[str] = Field(description="csv order.")
    device: str
    precision: str
    main_tta: str = Field(description="Of predictions.parquet, confusion.png and samples.parquet: the last one asked.")
    tta: dict[str, TtaScores]
    notes: list[str] = Field(default=[], description="What a reader of the figures must know.")


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``metrics.json``.

    Raises:
        DataError: it isn't what this version of the program writes.
    """
    file = folder / METRICS_FILE
    try:
        return Evaluation.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not readable as an evaluation: {error}. Run `fer-ray evaluate` again.") from error


def score_predictions(labels: np.ndarray, predicted: np.ndarray) -> Scores:
    """Compute all figures with scikit-learn.

    Args:
        labels: int, n, n > 0, csv order.
        predicted: int, n, csv order.
    """
    every = range(NUM_CLASSES)
    accuracy = float(accuracy_score(labels, predicted))
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    classes = {
        name: ClassScores(
            precision=float(precision[label]),
            recall=float(recall[label]),
            f1=float(f1[label]),
            support=int(support[label]),
        )
        for label, name in enumerate(EMOTIONS)
    }
    return Scores(
        rows=len(labels),
        accuracy=accuracy,
        standard_error=float(np.sqrt(accuracy * (1 - accuracy) / len(labels))),
        macro_f1=float(np.mean(f1)),
        classes=classes,
        confusion=confusion_matrix(labels, predicted, labels=every).tolist(),
    )
