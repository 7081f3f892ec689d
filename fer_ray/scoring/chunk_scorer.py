"""Score chunks of a manifest with many threads in one process."""

import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import cv2
import numpy as np
import torch

from fer_ray.images.decode import DecodedImage, ImageError, decode, resize
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.faces import FaceDetector, FoundFace, crop, load_detector
from fer_ray.images.image_files import FileError
from fer_ray.inference.device import limit_gpu_memory
from fer_ray.inference.predictor import Predictions, Predictor, load_members
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.job import ChunkResult, ScoringOptions, StageSeconds
from fer_ray.scoring.manifest import Chunk, ChunkReader
from fer_ray.scoring.parts import Problem, ScoredRow, write_piece
from fer_ray.scoring.timed_threads import TimedBatches
from fer_ray.storage.output import Output

BATCH_SIZES = {"cpu": (16, 32, 64, 128), "cuda": (128, 256, 512, 1024)}
"""Images a forward pass that are tried, by device."""
_TRIAL_SECONDS = 1.0
_TRIALS = 3  # of a size; the fastest counts, as other processes slow the rest down
_AS_FAST = 0.97  # of the fastest; the largest such size is chosen, as other processes slow it down least
_MOST_THREADS = 16  # a network drive or an object store answers within 1 to 50 ms
_DETECTED_SIDE = 640  # a photo's shorter side in pixels that is enough to find faces

_NO_FACE = Problem("no_face", None)
_own = threading.local()


class _ReadImage(NamedTuple):
    """The pictures of an entry, one a face or one for the whole image, or the problem; and the seconds."""

    faces: list[tuple[FoundFace | None, np.ndarray]]
    problem: Problem | None
    reading: float = 0.0
    decoding: float = 0.0


class ChunkScorer:
    """Reads, decodes and predicts the inputs of chunks, and writes their rows.

    On a CPU each thread takes a batch from bytes to probabilities, with PyTorch on one core, so that no thread waits
    for another within a layer. PyTorch and OpenCV are set to one thread in the whole process. For a GPU all threads
    decode one batch while the GPU predicts another. Concurrent calls share the threads, so that none is idle at the end
    of a chunk.

    Args:
        folder: the output, with the manifest.
        options: of the job.
        threads: that decode, and on a CPU also predict.
        gpu: share of a GPU that this process has; 0 for none.

    Raises:
        UsageError: unknown TTA, precision or detector, or too little memory.
        DataError: a checkpoint can't be read, or its labels are not the seven emotions.
    """

    def __init__(self, folder: Output, options: ScoringOptions, threads: int, gpu: float = 0) -> None:
        torch.set_num_threads(1)
        limit_gpu_memory(gpu)
        cv2.setNumThreads(1)
        self._folder, self._options = folder, options
        self._manifest = ChunkReader(folder)
        self._detect = load_detector(options.faces)
        members = load_members(options.checkpoints)
        self._predictor = Predictor(members, options.tta, options.precision)
        self._requested = options.batch_size or fastest_batch_size(self._predictor)
        self._predictor.batch_size = self._requested
        self._on_gpu = self._predictor.device.type == "cuda"
        if self._on_gpu:
            torch.cuda.synchronize()  # the weights are there before other streams use them
        self._least_threads = threads
        self._batches = TimedBatches(self._read_image, self._timed_out, self._predict, threads, options.timeout_s)

    @property
    def batch_size(self) -> int:
        """Images a forward pass; halved where memory ran out."""
        return self._predictor.batch_size

    @property
    def halved(self) -> bool:
        """Whether memory has run out since the first pass."""
        return self.batch_size < self._requested

    @property
    def precision(self) -> str:
        """``float32`` or ``bfloat16``."""
        return self._predictor.precision

    def score(self, number: int, chunk: Chunk) -> ChunkResult:
        """Write a chunk's piece."""
        listed, spent = self._manifest.read(chunk), StageSeconds()
        entries = [entry for entry, _ in listed]
        batches = [entries[start : start + self.batch_size] for start in range(0, len(entries), self.batch_size)]
        with quiet_decoders():
            scored = self._batches.map(batches)
        began = time.perf_counter()
        found = [one for of_batch, _, _ in scored for one in of_batch]
        for _, _, of_batch in scored:
            spent.add(of_batch)
        self._write(number, listed, found, [predictions for _, predictions, _ in scored])
        spent.writing += time.perf_counter() - began
        by_status = Counter[str]()
        for one, (_, times) in zip(found, listed, strict=True):
            by_status[one.problem.status if one.problem else "ok"] += times
        return ChunkResult(by_status, spent)

    def _predict(self, found: list[_ReadImage]) -> tuple[list[_ReadImage], Predictions, StageSeconds]:
        pictures = [picture for one in found for _, picture in one.faces]
        size = self._predictor.size
        began = time.perf_counter()
        with self._own_stream():
            array = np.stack(pictures) if pictures else np.empty((0, size, size), np.uint8)
            predictions = self._predictor.predict(array)
        spent = StageSeconds(sum(f.reading for f in found), sum(f.decoding for f in found), time.perf_counter() - began)
        self._adjust_threads(spent)
        return found, predictions, spent

    def _adjust_threads(self, spent: StageSeconds) -> None:
        """Use more threads where they wait for slow storage, so that no core is idle."""
        waiting = spent.reading / max(spent.decoding + spent.predicting, 1e-9)
        self._batches.threads = max(self._least_threads, min(_MOST_THREADS, 1 + round(waiting)))

    def _own_stream(self) -> AbstractContextManager[object]:
        """Return a CUDA stream's context of this thread: its copies run while another thread's network computes."""
        if not self._on_gpu:
            return nullcontext()
        if not hasattr(_own, "stream"):
            _own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return cast(AbstractContextManager[object], torch.cuda.stream(_own.stream))

    def _read_image(self, entry: Entry) -> _ReadImage:
        """Read and decode an entry; raises nothing."""
        began = time.perf_counter()
        try:
            data = read_entry(entry)
        except FileError as error:
            return _ReadImage([], Problem(error.kind, error.message), time.perf_counter() - began)
        except Exception as error:  # any fault of a reader concerns this row alone
            return _ReadImage(
                [], Problem("unreadable", f"{type(error).__name__}: {error}"), time.perf_counter() - began
            )
        read = time.perf_counter()
        faces, problem = list[tuple[FoundFace | None, np.ndarray]](), None
        try:
            faces = self._crops(data)
            problem = None if faces else _NO_FACE
        except ImageError as error:
            problem = Problem(error.kind, error.message)
        except Exception as error:  # likewise any fault of a decoder or detector
            problem = Problem("undecodable", f"{type(error).__name__}: {error}")
        return _ReadImage(faces, problem, read - began, time.perf_counter() - read)

    def _crops(self, data: bytes) -> list[tuple[FoundFace | None, np.ndarray]]:
        size = self._predictor.size
        if self._detect is None:
            return [(None, decode(data, size).pixels)]
        return _detected(self._detect, decode(data, shorter_side=_DETECTED_SIDE), size)

    def _timed_out(self, entry: Entry) -> _ReadImage:
        seconds = self._options.timeout_s
        return _ReadImage([], Problem("timeout", f"not read and decoded within {seconds:g} s"), seconds)

    def _write(
        self,
        number: int,
        listed: list[tuple[Entry, int]],
        found: list[_ReadImage],
        predictions: list[Predictions],
    ) -> None:
        rows, pictures, first = list[ScoredRow](), list[int](), 0
        for (entry, times), one in zip(listed, found, strict=True):
            faces = enumerate(face for face, _ in one.faces)
            own = [ScoredRow(entry.name, None, None if face is None else n, face) for n, face in faces]
            for _ in range(times):
                rows += own or [ScoredRow(entry.name, one.problem)]
                pictures += range(first, first + len(own))
            first += len(own)
        write_piece(
            self._folder,
            number,
            rows,
            np.concatenate([one.probabilities for one in predictions])[pictures],
            np.concatenate([one.entropy for one in predictions])[pictures],
            np.concatenate([one.tta_std for one in predictions])[pictures],
            self.precision,
            self._detect is not None,
        )


def _detected(detect: FaceDetector, image: DecodedImage, size: int) -> list[tuple[FoundFace | None, np.ndarray]]:
    """Return the faces of an image, with boxes in pixels of the original."""
    scale = image.width / image.pixels.shape[1]
    return [(face.scaled(scale), resize(crop(image.pixels, face), size)) for face in detect(image.pixels)]


def fastest_batch_size(predictor: Predictor) -> int:
    """Measure on seeded noise with which batch size a predictor is fastest.

    Sizes are tried in ascending order, until memory runs out or a second is over.
    """
    sizes = BATCH_SIZES[predictor.device.type]
    noise = np.random.default_rng(0).integers(0, 256, (sizes[-1], predictor.size, predictor.size), dtype=np.uint8)
    speeds, began = dict[int, float](), time.perf_counter()
    for size in sizes:
        predictor.batch_size = size
        predictor.predict(noise[:size])  # allocates memory, chooses kernels
        seconds = min(_seconds_of(predictor, noise[:size]) for _ in range(_TRIALS))
        if predictor.batch_size < size:
            break
        speeds[size] = size / seconds
        if time.perf_counter() - began > _TRIAL_SECONDS:
            break
    enough = _AS_FAST * max(speeds.values(), default=0)
    return max((size for size, speed in speeds.items() if speed >= enough), default=predictor.batch_size)


def _seconds_of(predictor: Predictor, images: np.ndarray) -> float:
    began = time.perf_counter()
    predictor.predict(images)
    return time.perf_counter() - began
