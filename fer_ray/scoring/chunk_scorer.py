"""Score chunks of a manifest with many threads in one process."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast

import cv2
import numpy as np
import torch

from fer_ray.images.decode import decode, resize
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.faces import crop, load_detector
from fer_ray.images.image_files import FileError
from fer_ray.inference.device import limit_gpu_memory
from fer_ray.inference.predictor import Predictor
from fer_ray.scoring.columns import ReadImage, rows_of
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.job import Done, ScoringJob
from fer_ray.scoring.manifest import GROUP_ROWS, Chunk, Manifest
from fer_ray.scoring.parts import write_part
from fer_ray.scoring.timed_threads import TimedBatches
from fer_ray.scoring.totals import Totals
from fer_ray.storage.output import Output

BATCH_SIZE = {"cpu": 64, "cuda": 512}  # images a forward pass by device, unless the job says otherwise
CHUNK_SECONDS = 4.0  # work of a chunk, which is what a kill can cost
_MOST_THREADS = 16  # a network drive or an object store answers within 1 to 50 ms
_DETECTED_SIDE = 640  # a photo's shorter side in pixels that is enough to find faces
_CROP_SIDE, _CROP_ASPECT = 384, 1.3  # of face crops; most data sets have 48 to 256 pixels and a ratio up to 1.22

_own = threading.local()


class ChunkScorer:
    """Reads, decodes and predicts the inputs of chunks, and writes their rows.

    On a CPU each thread takes a batch from bytes to probabilities, with PyTorch on one core, so that no thread waits
    for another within a layer. PyTorch and OpenCV are set to one thread in the whole process until ``stop``. For a GPU
    all threads decode one batch while the GPU predicts another. Concurrent calls share the threads, so that none is
    idle at the end of a chunk.

    Args:
        folder: the output, with the manifest.
        job: what to score, and how.
        threads: that decode, and on a CPU also predict.
        gpu: share of a GPU that this process has; 0 for none.

    Raises:
        UsageError: unknown TTA, precision or detector, or too little memory.
        DataError: a checkpoint can't be read, or its labels are not the seven emotions.
    """

    def __init__(self, folder: Output, job: ScoringJob, threads: int, gpu: float = 0) -> None:
        limit_gpu_memory(gpu)
        self._folder, self._job = folder, job
        self._manifest = Manifest(folder)
        self._detect = load_detector(job.faces)
        self._threads_before = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)  # before ONNX Runtime takes the number over
        cv2.setNumThreads(1)
        try:
            self._predictor = Predictor(job.checkpoints, job.tta, job.precision)
        except Exception:
            self._reset_threads()
            raise
        device = self._predictor.device.type
        self._first_batch_size = job.batch_size or BATCH_SIZE[device]
        self._predictor.batch_size = self._first_batch_size
        self._on_gpu = device == "cuda"
        if self._on_gpu:
            torch.cuda.synchronize()  # the weights are there before other streams use them
        self._least_threads = threads
        self._batches = TimedBatches(self._read_image, self._timed_out, self._predict, threads, job.timeout_s)
        self._set_threads(threads)
        self._per_s = 0.0

    def score_next(self, take: Callable[[int, int], Chunk | None]) -> Done | None:
        """Score a chunk and write its part.

        A chunk is about ``CHUNK_SECONDS`` of work and, but for the last one, a multiple of the batch size: so batches
        have the same inputs, and rows the same numbers, whatever is killed and whoever scores them. ``take`` returns a
        chunk of about so many inputs, a multiple of the second number; None when none are left.
        """
        batch_size = self._predictor.batch_size
        least = batch_size * (self._least_threads if not (self._per_s or self._on_gpu) else 1)  # all threads warm up
        chunk = take(max(least, min(GROUP_ROWS, round(CHUNK_SECONDS * self._per_s))), batch_size)
        if chunk is None:
            return None
        began = time.time()
        entries = self._manifest.read(chunk)
        batches = [entries[start : start + batch_size] for start in range(0, len(entries), batch_size)]
        with quiet_decoders():
            scored = self._batches.map(batches)
        images = [image for of_batch, _, _ in scored for image in of_batch]
        writing = time.perf_counter()
        numbers = np.concatenate([of_batch for _, of_batch, _ in scored])
        table = rows_of([entry.name for entry in entries], images, numbers, self._detect is not None)
        write_part(self._folder, chunk, table, self._job.format)
        totals = Totals.of(table, [picture for image in images for _, picture in image.faces])
        totals.no_crops, totals.began = sum(not image.is_crop for image in images), began
        for _, _, seconds in scored:
            for stage, spent in seconds.items():
                totals.seconds[stage] += spent
        totals.seconds["writing"] = time.perf_counter() - writing
        self._per_s = chunk.files / max(time.time() - began, 1e-3)
        images_a_pass = self._predictor.batch_size
        return Done(totals, self._predictor.precision, images_a_pass, images_a_pass < self._first_batch_size)

    def stop(self) -> None:
        """End the threads, but for those that wait for a file, and set PyTorch's and OpenCV's number as it was."""
        self._batches.stop()
        self._reset_threads()

    def _reset_threads(self) -> None:
        torch.set_num_threads(self._threads_before[0])
        cv2.setNumThreads(self._threads_before[1])

    def _predict(self, images: list[ReadImage]) -> tuple[list[ReadImage], np.ndarray, dict[str, float]]:
        """Return a batch with the numbers of its faces, as for ``rows_of``, and the seconds by stage."""
        pictures = [picture for image in images for _, picture in image.faces]
        size = self._predictor.size
        began = time.perf_counter()
        with self._own_stream():
            array = np.stack(pictures) if pictures else np.empty((0, size, size), np.uint8)
            predictions = self._predictor.predict(array)
        seconds = {
            "reading": sum(image.reading for image in images),
            "decoding": sum(image.decoding for image in images),
            "predicting": time.perf_counter() - began,
        }
        # Threads that wait for slow storage leave cores idle, so more of them are used.
        waiting = seconds["reading"] / max(seconds["decoding"] + seconds["predicting"], 1e-9)
        self._set_threads(max(self._least_threads, min(_MOST_THREADS, 1 + round(waiting))))
        numbers = np.column_stack([predictions.probabilities, predictions.entropy, predictions.tta_std])
        return images, numbers, seconds

    def _set_threads(self, threads: int) -> None:
        self._batches.threads = threads
        self._batches.open_batches = 2 if self._on_gpu else 1 + threads

    def _own_stream(self) -> AbstractContextManager[object]:
        """Return a CUDA stream's context of this thread: its copies run while another thread's network computes."""
        if not self._on_gpu:
            return nullcontext()
        if not hasattr(_own, "stream"):
            _own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return cast(AbstractContextManager[object], torch.cuda.stream(_own.stream))

    def _read_image(self, entry: Entry) -> ReadImage:
        """Read and decode an entry; raises nothing."""
        began, read = time.perf_counter(), None
        try:
            data = read_entry(entry)
            read = time.perf_counter()
            image = self._crops(data)
        except FileError as error:
            image = ReadImage(status=error.kind, error=error.message)
        except Exception as error:  # any fault of a reader, decoder or detector concerns this row alone
            status: Literal["unreadable", "undecodable"] = "unreadable" if read is None else "undecodable"
            image = ReadImage(status=status, error=f"{type(error).__name__}: {error}")
        ended = time.perf_counter()
        read = read or ended
        return image._replace(reading=read - began, decoding=ended - read)

    def _crops(self, data: bytes) -> ReadImage:
        size = self._predictor.size
        if self._detect:
            image = decode(data, shorter_side=_DETECTED_SIDE)
            scale = image.width / image.pixels.shape[1]  # boxes are in pixels of the original
            found = self._detect(image.pixels)
            faces = [(face.scaled(scale), resize(crop(image.pixels, face), size)) for face in found]
            return ReadImage(faces, "ok" if faces else "no_face")
        image = decode(data, size)
        longer, shorter = max(image.width, image.height), min(image.width, image.height)
        return ReadImage([(None, image.pixels)], is_crop=longer <= min(_CROP_SIDE, _CROP_ASPECT * shorter))

    def _timed_out(self, entry: Entry) -> ReadImage:
        seconds = self._job.timeout_s
        return ReadImage(status="timeout", error=f"not read and decoded within {seconds:g} s", reading=seconds)
