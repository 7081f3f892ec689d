"""Score chunks of a list of image files with many threads in one process."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from fer_ray.data import manifest, parts
from fer_ray.data.images import quiet_decoders
from fer_ray.emotions import csv_order
from fer_ray.learning.checkpoint import load_checkpoint
from fer_ray.learning.device import pick_device, resolve_precision
from fer_ray.learning.predictor import Predictor

BATCH_SIZE = {"cpu": 64, "cuda": 256}
"""Images a forward pass by device. On a CPU 32 to 256 measured alike, and small ones share the work better."""


class ChunkScorer:
    """Reads, decodes and predicts the files of a chunk and writes its part.

    Each thread takes a batch from disk to probabilities, with torch on one core: no thread waits for another within a
    network's layer. Torch and OpenCV keep to one thread in the whole process from then on.

    Args:
        folder: with the manifest; the parts go there too.
        checkpoint: a checkpoint folder.
        tta: a name in ``fer_ray.learning.tta.VIEWS``.
        batch_size: images a forward pass; None for what measured well on the device.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        threads: how many batches are in work at once.

    Raises:
        UsageError: no such TTA or precision.
        DataError: the checkpoint can't be read, or its labels are not the seven emotions.
    """

    def __init__(
        self, folder: Path, checkpoint: Path, tta: str, batch_size: int | None, precision: str, threads: int
    ) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        device = pick_device()
        self._folder, self._batch_size = folder, batch_size or BATCH_SIZE[device.type]
        self._precision = str(resolve_precision(precision, device)).removeprefix("torch.")
        self._predictor = Predictor(load_checkpoint(checkpoint), tta, precision, self._batch_size)
        self._columns = csv_order(self._predictor.info.label_names)
        self._pool = ThreadPoolExecutor(threads)

    def score(self, chunk: int) -> tuple[int, int]:
        """Write a chunk's part, and return the number of its files and of those that failed."""
        paths = manifest.chunk_paths(self._folder, chunk)
        batches = [paths[start : start + self._batch_size] for start in range(0, len(paths), self._batch_size)]
        with quiet_decoders():
            scored = list(self._pool.map(self._score, batches))
        problems = [problem for of_batch, _, _ in scored for problem in of_batch]
        probabilities = np.concatenate([of_batch for _, of_batch, _ in scored])
        tta_std = np.concatenate([of_batch for _, _, of_batch in scored])
        file = parts.part_file(self._folder, chunk)
        parts.write_part(file, paths, problems, probabilities, tta_std, self._precision)
        return len(paths), sum(problem is not None for problem in problems)

    def _score(self, paths: list[bytes]) -> tuple[list[parts.Problem | None], np.ndarray, np.ndarray]:
        size = self._predictor.info.size
        found = [parts.read_image(path, size) for path in paths]
        images = [image for image in found if isinstance(image, np.ndarray)]
        predictions = self._predictor.predict(np.stack(images) if images else np.empty((0, size, size), np.uint8))
        problems = [result if isinstance(result, parts.Problem) else None for result in found]
        return problems, predictions.probabilities[:, self._columns], predictions.tta_std
