"""A trained network on one device: from images to logits, in batches."""

import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_ray.cluster.memory import is_out_of_memory, memory_errors
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.emotions import csv_order
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.device import LAYOUT, autocast, pick_device, release_memory, resolve_precision, to_device
from fer_ray.inference.tta import VIEWS, Views
from fer_ray.storage.inputs import WEIGHTS_FILE, cache_folder
from fer_ray.storage.local import make_folder, write_whole
from fer_ray.version import VERSION


def normalize(images_bhw: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Turn uint8 images, B × H × W, into normalised float32 images, B × 1 × H × W.

    ``mean`` and ``std`` are those of the training pixels, 0 to 1.
    """
    return images_bhw.unsqueeze(1).float().mul_(1 / (255 * std)).sub_(mean / std)


PIXELS, PROBABILITIES = "pixels", "probabilities"
"""Names of the input and the output of ONNX models."""
EVAL_BATCH, GPU_EVAL_BATCH = 128, 1024
"""Batch sizes of validation and evaluation. On a CPU larger batches don't fit the caches and are slower."""
_SPEED_SECONDS = 0.5
_TRIED_IMAGES, _LEAST_GAIN = 64, 1.2
_MOST_AUTO_LOSS = 0.003  # of accuracy on validation images, up to which ``auto`` takes int8
LESS_MEMORY = (
    "Memory doesn't hold the network and one image. End other programs that use this memory, name fewer checkpoints or"
    " a --tta with fewer views, or compute on the CPU (CUDA_VISIBLE_DEVICES=)."
)
"""The remedy when memory runs out even with a batch of one image."""


def eval_batch(device: torch.device) -> int:
    """Return the images per forward pass of validation and evaluation on a device."""
    return GPU_EVAL_BATCH if device.type == "cuda" else EVAL_BATCH


def forward_batches(
    model: nn.Module, images_bchw: Iterator[torch.Tensor], device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """Yield float32 logits, B × K, of each normalised batch. The model must be in evaluation mode."""
    for batch in images_bchw:
        with torch.inference_mode(), autocast(device, dtype):
            logits = model(batch.to(device).contiguous(memory_format=LAYOUT))
        yield logits.float()


class OnnxModel:
    """An ONNX model that ONNX Runtime computes on the CPU, with as many threads as PyTorch, and its ``metadata``."""

    def __init__(self, file: Path):
        import onnxruntime  # here, as most processes don't need it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no class of their own
            raise DataError(f"{file}: not a readable ONNX model. Remove it, or export it again.") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float32, n × 7, in csv order, of images, uint8, n × size × size."""
        probabilities: np.ndarray = self._session.run([PROBABILITIES], {PIXELS: images})[0]
        return probabilities


class Network:
    """A checkpoint on a device.

    Args:
        checkpoint: a checkpoint folder, or a checkpoint in memory.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``int8``; the attribute is never ``auto``.
        batch_size: images per forward pass, None for ``eval_batch``; the attribute is halved when memory runs out.

    Raises:
        UsageError: the precision is unknown or the checkpoint doesn't have it, or memory doesn't hold the network.
        DataError: as for ``load_checkpoint``.
    """

    def __init__(self, checkpoint: Checkpoint | Path | str, precision: str = "auto", batch_size: int | None = None):
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        self.info = self.checkpoint.info
        self.precision = choose_precision([self.checkpoint], precision)
        self.device = torch.device("cpu") if self.precision == "int8" else pick_device()
        self.batch_size = batch_size or eval_batch(self.device)
        with memory_errors(LESS_MEMORY):
            if self.precision == "int8":
                self._int8 = _load_int8(self.checkpoint)
            else:
                self._dtype = resolve_precision(self.precision, self.device)
                self._model = to_device(_with_kernels_in(self._dtype, self.checkpoint.model), self.device).eval()

    def logits(self, images: np.ndarray, views: Views = VIEWS["none"]) -> torch.Tensor:
        """Return the logits of each view, float32, V × n × K, on the CPU, in the network's own order of labels.

        Args:
            images: uint8, n × size × size, grey, 0 black to 255 white.
            views: the views of each batch.

        Raises:
            UsageError: the images have another shape or dtype, or memory doesn't hold one image.
        """
        size = self.info.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size):
            raise UsageError(
                f"images of dtype {images.dtype} and shape {images.shape}: uint8, n × {size} × {size} expected, or a"
                " list of pictures of any size."
            )
        batches, done, requested = list[torch.Tensor](), 0, self.batch_size
        while done < len(images) or not batches:
            batch = images[done : done + self.batch_size]
            try:
                with memory_errors(LESS_MEMORY) if len(batch) <= 1 else nullcontext():
                    batches.append(self._of_batch(batch, views))
                done += len(batch)
            except Exception as error:
                if len(batch) <= 1 or not is_out_of_memory(error):
                    raise
                # Another thread may have halved batch_size already.
                self.batch_size = min(self.batch_size, len(batch) // 2)
                release_memory()
        if self.batch_size < requested:
            say(f"Memory ran out with a batch of {amount(requested, 'image')}; batches of {self.batch_size:,} follow.")
        return torch.cat(batches, dim=1)

    def _of_batch(self, images: np.ndarray, views: Views) -> torch.Tensor:
        pixels = torch.tensor(images)
        if self.device.type == "cuda":  # a copy from pinned memory is asynchronous
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        batch_bchw = normalize(pixels, self.info.mean, self.info.std)
        if self.precision == "int8":
            return torch.stack([self._int8_logits(view) for view in views(batch_bchw)])
        logits = forward_batches(self._model, views(batch_bchw), self.device, self._dtype)
        return torch.stack(list(logits)).cpu()

    def _int8_logits(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Return logits whose calibrated softmax is the int8 model's output; its input is rounded to 256 greys."""
        greys = images_bchw.squeeze(1).mul(255 * self.info.std).add_(255 * self.info.mean).round_().clamp_(0, 255)
        probabilities = torch.from_numpy(self._int8.probabilities(greys.to(torch.uint8).numpy()))
        logits = probabilities.clamp_(min=torch.finfo(torch.float32).tiny).log_() * self.info.temperature
        own_order = np.argsort(csv_order(self.info.label_names))
        return logits[:, own_order]


def _with_kernels_in(dtype: torch.dtype, model: nn.Module) -> nn.Module:
    """Return a network with weights in ``dtype``, to which autocast would convert them in each forward pass."""
    if dtype == torch.float32:
        return model
    cast = copy.deepcopy(model)
    for module in cast.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)
    return cast


def choose_precision(checkpoints: Sequence[Checkpoint], precision: str) -> str:
    """Return the precision in which all checkpoints predict; ``auto`` is the fastest of the device.

    On a CPU, ``auto`` is int8 if every checkpoint has an int8 model that loses at most ``_MOST_AUTO_LOSS`` of accuracy
    and is faster here, which is measured once for each machine and kept in the folder of local copies. ``UsageError``
    if the precision is unknown, ``DataError`` if an int8 model was not made from the checkpoint's weights.
    """
    if precision == "int8":
        return precision
    device = pick_device()
    dtype = str(resolve_precision(precision, device)).removeprefix("torch.")
    if precision != "auto" or device.type != "cpu":
        return dtype
    return "int8" if all(one.int8 and _is_int8_better(one, one.int8, dtype) for one in checkpoints) else dtype


def _load_int8(checkpoint: Checkpoint) -> OnnxModel:
    """Return a checkpoint's int8 model; raise if it has none, or one that was not made from its weights."""
    if checkpoint.int8 is None:
        raise UsageError(
            f"--precision int8: a checkpoint of '{checkpoint.info.config.model.name}' has no int8 model. Make it by"
            " `fer-ray export CHECKPOINT --int8 --into-checkpoint --dataset D --output DIR`."
        )
    model = OnnxModel(checkpoint.int8)
    if model.metadata.get("weights") != digest(checkpoint.int8.with_name(WEIGHTS_FILE)):
        raise DataError(f"{checkpoint.int8}: not of the weights beside it. Remove it, or export it again.")
    return model


def _int8_loss(checkpoint: Checkpoint) -> float:
    """Return the accuracy on validation images that a checkpoint loses by its int8 model, as a share."""
    metadata = _load_int8(checkpoint).metadata
    return float(metadata["checkpoint_accuracy"]) - float(metadata["accuracy"])


def _is_int8_better(checkpoint: Checkpoint, int8: Path, dtype: str) -> bool:
    """Return whether int8 is accurate enough and faster here than ``dtype``, found out once for each machine."""
    compared = [digest(int8), digest(int8.with_name(WEIGHTS_FILE)), dtype, platform.node(), VERSION]
    file = cache_folder() / "speeds" / sha256(json.dumps(compared).encode()).hexdigest()[:32]
    if not file.is_file():
        better = _int8_loss(checkpoint) <= _MOST_AUTO_LOSS and _is_int8_faster(checkpoint, dtype)
        make_folder(file.parent)
        write_whole(file, "int8" if better else dtype)
    return file.read_text() == "int8"


def digest(file: Path) -> str:
    """Return the SHA-256 of a file by which an int8 model names the weights that it was made from."""
    return sha256(file.read_bytes()).hexdigest()


def _is_int8_faster(checkpoint: Checkpoint, dtype: str) -> bool:
    """Return whether int8 is clearly faster with one thread, as in scoring: noise must not choose the slower one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        networks = [Network(checkpoint, precision, _TRIED_IMAGES) for precision in ("int8", dtype)]
        images = random_images(_TRIED_IMAGES, checkpoint.info.size)
        int8, other = (seconds_of(partial(network.logits, images)) for network in networks)
    finally:
        torch.set_num_threads(threads)
    return _LEAST_GAIN * int8 < other


def random_images(number: int, size: int) -> np.ndarray:
    """Return random images, uint8, n × size × size, the same at each call."""
    return np.random.default_rng(0).integers(0, 256, (number, size, size), dtype=np.uint8)


def prediction_speed(checkpoint: Path, precision: str) -> float:
    """Return the median speed of a checkpoint's network on this machine in images/s, without TTA, on random images."""
    network = Network(checkpoint, precision)
    images = random_images(EVAL_BATCH, network.info.size)
    return EVAL_BATCH / seconds_of(lambda: network.logits(images))


def seconds_of(step: Callable[[], object]) -> float:
    """Return the median seconds of a step, repeated for ``_SPEED_SECONDS`` after a warm-up."""
    seconds, began = list[float](), 0.0
    while not seconds or time.perf_counter() - began < _SPEED_SECONDS:
        start = time.perf_counter()
        step()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        if began:
            seconds.append(time.perf_counter() - start)
        began = began or time.perf_counter()
    return statistics.median(seconds)
