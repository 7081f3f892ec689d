"""Predict with one checkpoint or several as one: calibrated probabilities with test-time augmentation (TTA)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.special import entr

from fer_ray.config.tta_names import ADAPTIVE, TTA_NAMES
from fer_ray.emotions import EMOTIONS, csv_order
from fer_ray.errors import DataError, Problems, UsageError, did_you_mean
from fer_ray.images.decode import decode, decode_pillow
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.image_files import FileError, read_file
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.network import Network, choose_precision
from fer_ray.inference.tta import UNSURE, VIEWS, Views, more_views
from fer_ray.storage.object_store import absolute, as_url

_DTYPES = ("u1", "u2", "b1")
Picture = Path | str | bytes | Image.Image | np.ndarray
"""A file's path, an image file's bytes, a Pillow image, or an array.

An array holds H × W grey pixels, or uint8 H × W × 3 RGB or H × W × 4 RGBA pixels. White is 255 in uint8, 65,535 in
uint16 and True in bool. Palette and CMYK arrays are not supported, and a photo's EXIF orientation must be applied.

A large JPEG (four times the network's size or more) is shrunk during decoding, if it is given as a path, bytes or an
unloaded Pillow image. Its pixels then differ slightly from those of an array or a loaded Pillow image.
"""


@dataclass(frozen=True)
class Predictions:
    """Predictions of one or more networks for n images. Labels and columns are in csv order (``fer_ray.emotions``)."""

    probabilities: np.ndarray  # float32, n × 7; mean of the members' calibrated probabilities; each row sums to 1
    tta_std: np.ndarray  # float32, n; standard deviation of the predicted label's probability over the views
    views: np.ndarray  # int64, n; number of views of each image
    members: np.ndarray  # float32, M × n × 7; calibrated probabilities of each member
    uncalibrated: np.ndarray  # float32, n × 7; like ``probabilities``, with every temperature 1

    @property
    def labels(self) -> np.ndarray:
        """Index of the most probable label, int64, n."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def names(self) -> list[str]:
        """Most probable label name of each image."""
        return [EMOTIONS[label] for label in self.labels]

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the most probable label, float32, n."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of the probabilities in nats, float32, n: 0 if one label is certain, ln 7 = 1.95 if all are equal."""
        return np.asarray(entr(self.probabilities).sum(axis=1))

    def with_rows(self, rows: np.ndarray, others: "Predictions") -> "Predictions":
        """Return a copy whose ``rows`` are replaced by those of ``others``, in order."""
        merged = {field.name: getattr(self, field.name).copy() for field in fields(self)}
        for name, values in merged.items():
            values[rows if values.ndim == 1 else (..., rows, slice(None))] = getattr(others, name)
        return Predictions(**merged)


class Predictor:
    """A checkpoint, or an ensemble of several, on one device.

    Args:
        checkpoints: a checkpoint folder or a checkpoint in memory, or several for images of the same size.
        tta: one of ``fer_ray.config.tta_names.TTA_NAMES``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``int8``, which needs an int8 model in each checkpoint; the
            attribute is never ``auto``.
        batch_size: images per forward pass; None for ``eval_batch``.

    Raises:
        UsageError: the TTA is unknown, or the precision is unknown or a checkpoint doesn't have it.
        UsageError, DataError: as for ``load_members``.
    """

    def __init__(
        self,
        checkpoints: Checkpoint | Path | str | Sequence[Checkpoint | Path | str],
        tta: str = "none",
        precision: str = "auto",
        batch_size: int | None = None,
    ):
        if tta not in TTA_NAMES:
            raise UsageError(f"tta {tta}: unknown.{did_you_mean(tta, TTA_NAMES)} Known: {', '.join(TTA_NAMES)}.")
        self.tta: str = tta
        members = load_members([checkpoints] if isinstance(checkpoints, (Checkpoint, Path, str)) else checkpoints)
        self.precision = choose_precision(members, precision)
        self._networks = [Network(one, self.precision, batch_size) for one in members]
        self._orders = [csv_order(network.info.label_names) for network in self._networks]
        self.size = members[0].info.size

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self._networks[0].device

    @property
    def batch_size(self) -> int:
        """Images per forward pass. It is halved when memory runs out."""
        return min(network.batch_size for network in self._networks)

    @batch_size.setter
    def batch_size(self, images: int) -> None:
        for network in self._networks:
            network.batch_size = images

    def predict(self, images: np.ndarray | Picture | Iterable[Picture]) -> Predictions:
        """Predict images of one face each.

        Args:
            images: an array, uint8, n × size × size, grey, 0 black to 255 white; or one or several pictures of any size
                (``Picture``), which are decoded and resized as in scoring.

        Raises:
            UsageError: the array has another shape or dtype.
            DataError: a picture can't be read.
        """
        if not isinstance(images, np.ndarray):
            images = square_greys(images, self.size)
        logits = self._logits(images, VIEWS[self.tta])
        predictions = self._average(logits)
        highest = np.sort(predictions.probabilities, axis=1)[:, -2:]
        unsure = np.flatnonzero(highest[:, 1] - highest[:, 0] < UNSURE)
        if self.tta != ADAPTIVE or not len(unsure):
            return predictions
        more = self._logits(images[unsure], more_views)
        both = [torch.cat([few[:, unsure], many]) for few, many in zip(logits, more, strict=True)]
        return predictions.with_rows(unsure, self._average(both))

    def _logits(self, images: np.ndarray, views: Views) -> list[torch.Tensor]:
        """Return each member's logits, float32, V × n × 7, csv order, on the CPU."""
        pairs = zip(self._networks, self._orders, strict=True)
        return [network.logits(images, views)[:, :, order] for network, order in pairs]

    def _average(self, logits_mvnk: Sequence[torch.Tensor]) -> Predictions:
        temperatures = [network.info.temperature for network in self._networks]
        probs_mvnk = torch.stack(
            [(one / temperature).softmax(dim=2) for one, temperature in zip(logits_mvnk, temperatures, strict=True)]
        )
        probs_vnk = probs_mvnk.mean(dim=0)
        probs_nk = probs_vnk.mean(dim=0)
        chosen_vn = probs_vnk.gather(2, probs_nk.argmax(dim=1).expand(len(probs_vnk), -1).unsqueeze(2)).squeeze(2)
        spread_n = (chosen_vn - chosen_vn.mean(dim=0)).square().mean(dim=0).sqrt()  # std() warns of no images
        return Predictions(
            probabilities=probs_nk.numpy(),
            tta_std=spread_n.numpy(),
            views=np.full(len(probs_nk), len(probs_vnk)),
            members=probs_mvnk.mean(dim=1).numpy(),
            uncalibrated=torch.stack([one.softmax(dim=2).mean(dim=0) for one in logits_mvnk]).mean(dim=0).numpy(),
        )


def load_members(checkpoints: Sequence[Checkpoint | Path | str], size: int | None = None) -> list[Checkpoint]:
    """Read the checkpoints of an ensemble. They may differ in architecture and order of labels.

    Args:
        checkpoints: one or more checkpoint folders, by path or URL, or checkpoints in memory.
        size: side of a dataset's images in pixels; None accepts any size that is the same for all checkpoints.

    Raises:
        UsageError: a folder is named twice.
        DataError: checkpoints can't be read, expect images of another size, or have other labels. The message lists all
            problems.
    """
    members, folders, problems = list[Checkpoint](), list[str](), Problems()
    for one in checkpoints:
        name = one.info.config.model.name if isinstance(one, Checkpoint) else absolute(one)
        if not isinstance(one, Checkpoint):
            folders.append(name if as_url(name) else str(Path(name).resolve()))
            if folders.count(folders[-1]) == 2:
                problems.add(f"{name}: named twice, which would double its weight. Name it once.")
        with problems.collect():
            checkpoint = one if isinstance(one, Checkpoint) else load_checkpoint(one)
            members.append(checkpoint)
            own, first = checkpoint.info.size, members[0].info.size
            if own != (size or first):
                expected = f"the dataset has {size}" if size else f"the first checkpoint {first}"
                remedy = f"Prepare the dataset with --size {own}, or leave it out" if size else "Leave it out"
                raise DataError(f"{name}: expects images of {own} pixels, {expected}. {remedy}.")
    problems.stop()
    return members


def square_greys(pictures: Picture | Iterable[Picture], size: int) -> np.ndarray:
    """Return pictures as uint8, n × size × size, grey, 0 black to 255 white; ``DataError`` names what can't be read."""
    if isinstance(pictures, (Path, str, bytes, Image.Image, np.ndarray)) or not isinstance(pictures, Iterable):
        pictures = [pictures]
    squares, problems = [], list[str]()
    with quiet_decoders():
        for number, picture in enumerate(pictures):
            try:
                squares.append(_square(picture, size))
            except (FileError, ValueError) as error:
                which = f"{picture}: " if isinstance(picture, (Path, str)) else ""
                problems.append(f"image {number}: {which}{error}")
    if problems:
        raise DataError(problems)
    return np.stack(squares) if squares else np.empty((0, size, size), np.uint8)


def _square(picture: Picture, size: int) -> np.ndarray:
    if isinstance(picture, (Path, str)):
        picture = read_file(str(Path(picture).expanduser()).encode("utf-8", "surrogateescape"))
    if isinstance(picture, bytes):
        return decode(picture, size).pixels
    return decode_pillow(picture if isinstance(picture, Image.Image) else _as_pillow(np.asarray(picture)), size).pixels


def _as_pillow(array: np.ndarray) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    known = (1, 2, 3, 4) if array.dtype == np.uint8 else (1,)
    if not array.size or array.ndim not in (2, 3) or channels not in known or array.dtype.str[1:] not in _DTYPES:
        raise ValueError(
            f"{array.dtype} of shape {array.shape}: expected a path, the bytes of an image file, a Pillow image or an"
            " array (uint8 from 0 to 255, height × width grey or height × width × 3 RGB). If white is 1, convert it by"
            " (255 * array).astype('uint8')."
        )
    return Image.fromarray(array.squeeze(2) if array.ndim == 3 and channels == 1 else array)
