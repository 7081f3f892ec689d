"""Finding faces in photos.

The package's detector is OpenCV's cascade of Haar features (Viola and Jones 2001; Lienhart and Maydt 2002). FER-2013's
faces were found and cropped by it, so its crops resemble the training images. It finds upright frontal faces.
``FaceDetector`` is the interface of other detectors.
"""

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import cv2
import numpy as np

from fer_ray.errors import UsageError, did_you_mean

NO_FACES, DETECT = "none", "detect"
"""Values of ``--faces``: each image is a face; or the package's detector finds the faces."""

_CASCADE = "haarcascade_frontalface_alt.xml"
_LONGEST = 1024  # pixels of a side; larger images are shrunk
_SMALLEST = 24  # pixels of a face's side in the shrunk image; smaller faces show little of an expression
_STEP, _NEIGHBOURS = 1.1, 5  # ratio of successive face sizes; detections that a face needs


class FoundFace(NamedTuple):
    """A face in an image: its box in pixels from the left and the top, and the detector's score."""

    x: float
    y: float
    width: float
    height: float
    score: float

    def scaled(self, factor: float) -> "FoundFace":
        """Return the same face in an image that is ``factor`` times as large."""
        return FoundFace(self.x * factor, self.y * factor, self.width * factor, self.height * factor, self.score)


class FaceDetector(Protocol):
    """The interface of a face detector. Several threads call it at once.

    Attributes:
        name: with version and settings; ``--resume`` refuses a job with another name.
    """

    name: str

    def __call__(self, image: np.ndarray) -> Sequence[FoundFace]:
        """Return the faces in a grey image (uint8, H × W), the highest score first."""
        ...


class HaarDetector:
    """The package's detector. The score, above 0, is the last stage's sum over all detections of a face."""

    name = f"{_CASCADE}, step {_STEP}, neighbours {_NEIGHBOURS}, OpenCV {cv2.__version__}"

    def __init__(self) -> None:
        self._own = threading.local()  # a cascade has a buffer of its own

    def __call__(self, image: np.ndarray) -> list[FoundFace]:
        """As in ``FaceDetector``."""
        scale = max(1.0, max(image.shape) / _LONGEST)
        if scale > 1:
            size = round(image.shape[1] / scale), round(image.shape[0] / scale)
            image = cv2.resize(image, (max(size[0], 1), max(size[1], 1)), interpolation=cv2.INTER_AREA)
        boxes, _, scores = self._cascade().detectMultiScale3(
            cv2.equalizeHist(image),
            scaleFactor=_STEP,
            minNeighbors=_NEIGHBOURS,
            minSize=(_SMALLEST, _SMALLEST),
            outputRejectLevels=True,
        )
        faces = [
            FoundFace(float(x), float(y), float(width), float(height), float(score)).scaled(scale)
            for (x, y, width, height), score in zip(boxes, np.ravel(scores), strict=True)
        ]
        return sorted(faces, key=lambda face: -face.score)

    def _cascade(self) -> cv2.CascadeClassifier:
        if not hasattr(self._own, "cascade"):
            self._own.cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / _CASCADE))
        return cast(cv2.CascadeClassifier, self._own.cascade)


def load_detector(faces: str) -> FaceDetector | None:
    """Return the detector for a value of ``--faces``: None for ``none``, the package's for ``detect``, or the return
    value of the factory in ``MODULE:FACTORY``, which takes no arguments.

    Raises:
        UsageError: another value, or the factory returns no detector.
    """
    if faces == NO_FACES:
        return None
    if faces == DETECT:
        return HaarDetector()
    module, colon, factory = faces.partition(":")
    if not (colon and module and factory):
        near = did_you_mean(faces, (NO_FACES, DETECT))
        raise UsageError(
            f"--faces {faces}: must be {NO_FACES}, {DETECT}, or MODULE:FACTORY for your own detector.{near}"
        )
    try:
        detector = getattr(importlib.import_module(module), factory)()
    except Exception as error:  # from the user's own code
        raise UsageError(
            f"--faces {faces}: no detector: {type(error).__name__}: {error}. MODULE must be importable on every node,"
            " and FACTORY must take no arguments."
        ) from error
    if not callable(detector) or not isinstance(getattr(detector, "name", None), str):
        raise UsageError(
            f"--faces {faces}: returns a {type(detector).__name__}; expected a FaceDetector with `name` and `__call__`"
            " (fer_ray/images/faces.py)."
        )
    return cast(FaceDetector, detector)


def crop(image: np.ndarray, face: FoundFace) -> np.ndarray:
    """Return the part of a grey image inside a face's box, H × W.

    Raises:
        ValueError: the box is outside the image.
    """
    height, width = image.shape
    left, top = max(0, round(face.x)), max(0, round(face.y))
    right, bottom = min(width, round(face.x + face.width)), min(height, round(face.y + face.height))
    if left >= right or top >= bottom:
        raise ValueError(f"a face at {tuple(face)} is outside the image of {width} × {height} pixels")
    return image[top:bottom, left:right]
