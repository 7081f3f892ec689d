"""Detect faces in photos.

``HaarDetector`` is OpenCV's cascade of Haar features (Viola and Jones 2001; Lienhart and Maydt 2002). FER-2013's faces
were found and framed by the same method, so its boxes look like the training data. It finds upright frontal faces.
``FaceDetector`` is the protocol for custom detectors.
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
"""Values of ``--faces``: each image is a face, or its faces are detected."""

_CASCADE = "haarcascade_frontalface_alt.xml"
_LONGEST = 1024  # pixels of the longer side; larger pictures are shrunk to that
_SMALLEST = 24  # pixels; smaller faces show little of an expression
_STEP, _NEIGHBOURS = 1.1, 5  # ratio of successive face sizes; detections required for a face


class FoundFace(NamedTuple):
    """A face in a picture: its box in pixels from the left and the top, and the detector's confidence."""

    x: float
    y: float
    width: float
    height: float
    score: float

    def scaled(self, factor: float) -> "FoundFace":
        """Return the same face in a picture that is larger by the factor."""
        return FoundFace(self.x * factor, self.y * factor, self.width * factor, self.height * factor, self.score)


class FaceDetector(Protocol):
    """Detects faces. Several threads call it at once.

    Attributes:
        name: identifies everything that determines its output, version included; ``--resume`` refuses another name.
    """

    name: str

    def __call__(self, picture: np.ndarray) -> Sequence[FoundFace]:
        """Return the faces in a grey picture (uint8, H × W), in descending order of the score."""
        ...


class HaarDetector:
    """OpenCV's frontal cascade. The score is the last stage's sum over all detections of a face, above 0."""

    name = f"{_CASCADE}, step {_STEP}, neighbours {_NEIGHBOURS}, OpenCV {cv2.__version__}"

    def __init__(self) -> None:
        self._own = threading.local()  # a cascade stores intermediate results, so each thread has its own

    def __call__(self, picture: np.ndarray) -> list[FoundFace]:
        """Return the faces in a grey picture, as in ``FaceDetector``."""
        scale = max(1.0, max(picture.shape) / _LONGEST)
        if scale > 1:
            size = round(picture.shape[1] / scale), round(picture.shape[0] / scale)
            picture = cv2.resize(picture, (max(size[0], 1), max(size[1], 1)), interpolation=cv2.INTER_AREA)
        boxes, _, scores = self._cascade().detectMultiScale3(
            cv2.equalizeHist(picture),
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
    """Return the face detector that ``--faces`` names; None for ``none``.

    ``MODULE:FACTORY`` names a function without arguments that returns a ``FaceDetector``.

    Raises:
        UsageError: the value is unknown, or the factory gives no detector.
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
    except Exception as error:  # whatever the user's own code raises
        raise UsageError(
            f"--faces {faces}: no detector: {type(error).__name__}: {error}. MODULE must be importable on every node,"
            " FACTORY a function without arguments."
        ) from error
    if not callable(detector) or not isinstance(getattr(detector, "name", None), str):
        raise UsageError(
            f"--faces {faces}: gives a {type(detector).__name__}; a FaceDetector is expected, with `name` and"
            " `__call__` (fer_ray/images/faces.py)."
        )
    return cast(FaceDetector, detector)


def crop(picture: np.ndarray, face: FoundFace) -> np.ndarray:
    """Return a face's part of a picture, H × W, clipped to the picture.

    Raises:
        ValueError: the box lies outside the picture.
    """
    height, width = picture.shape
    left, top = max(0, round(face.x)), max(0, round(face.y))
    right, bottom = min(width, round(face.x + face.width)), min(height, round(face.y + face.height))
    if left >= right or top >= bottom:
        raise ValueError(f"a face at {tuple(face)} lies outside the picture of {width} × {height} pixels")
    return picture[top:bottom, left:right]
