"""The Parquet columns of labelled rows as arrays."""

import numpy as np
import pyarrow as pa

from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import DataError


def labels_of(table: pa.Table) -> np.ndarray:
    """Return the ``label`` column of labelled rows, int64, n, csv order.

    Raises:
        DataError: a label isn't 0 to 6.
    """
    labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= NUM_CLASSES)]
    if len(wrong):
        raise DataError(f"label {wrong[0]}: expected 0 to {NUM_CLASSES - 1}. Prepare the dataset again.")
    return labels


def soft_labels_of(table: pa.Table) -> np.ndarray:
    """Return the ``soft_label`` column of labelled rows, float32, n × 7."""
    # A labelled row has votes, so no value is null.
    parts = [chunk.flatten().to_numpy() for chunk in table["soft_label"].chunks]
    return np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, NUM_CLASSES)


def images_of(pixels: pa.ChunkedArray, size: int) -> np.ndarray:
    """Return a ``pixels`` column, uint8, n × size × size."""
    parts = [chunk.flatten().to_numpy() for chunk in pixels.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return flat.reshape(-1, size, size)
