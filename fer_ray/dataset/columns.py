"""The Parquet columns of labelled rows as arrays."""

import numpy as np
import pyarrow as pa

from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import DataError


def labels_of(table: pa.Table) -> np.ndarray:
    """Turn the ``label`` column of labelled rows into an array, int64, n, csv order.

    Raises:
        DataError: a label is no number of a class.
    """
    labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= NUM_CLASSES)]
    if len(wrong):
        raise DataError(f"label {wrong[0]}: labels are numbers from 0 to {NUM_CLASSES - 1}. Prepare the dataset again.")
    return labels


def soft_labels_of(table: pa.Table) -> np.ndarray:
    """Turn the ``soft_label`` column of labelled rows into an array, float32, n × 7."""
    # A labelled row has votes, so that none of these is null.
    parts = [chunk.flatten().to_numpy() for chunk in table["soft_label"].chunks]
    return np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, NUM_CLASSES)


def images_of(pixels: pa.ChunkedArray, size: int) -> np.ndarray:
    """Turn a ``pixels`` column into a uint8 array, n × size × size."""
    parts = [chunk.flatten().to_numpy() for chunk in pixels.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return flat.reshape(-1, size, size)
