"""How many faces the detectors of ``fer-ray score --faces`` find in the photos of scikit-image, scikit-learn and
matplotlib: upright, turned by 20°, and half as large.

    python tests/benchmarks/face_detectors.py

A face counts as found if a box has its middle there. All other boxes are false. Photos without a face count too.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import skimage
import sklearn
from common import machine, options

from fer_ray.images.decode import decode
from fer_ray.images.faces import CENTER_FACE, HAAR, load_detector

FOLDERS = (
    Path(skimage.__file__).parent / "data",
    Path(sklearn.__file__).parent / "datasets" / "images",
    Path(matplotlib.__file__).parent / "mpl-data" / "sample_data",
)
FACES = {"grace_hopper.jpg": (265, 220, 230), "astronaut.png": (224, 114, 95), "camera.png": (230, 155, 90)}
"""By photo the middle of its face and the side of its box, in pixels, judged by eye."""
VARIANTS = {"upright": (0, 1.0), "turned by 20°": (20, 1.0), "turned by −20°": (-20, 1.0), "half size": (0, 0.5)}


def photos() -> Iterator[tuple[str, np.ndarray]]:
    """Yield the photos' names and grey pixels."""
    for folder in FOLDERS:
        for file in sorted(folder.iterdir()):
            if file.suffix in (".png", ".jpg"):
                yield file.name, decode(file.read_bytes()).pixels


def changed(picture: np.ndarray, degrees: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture turned about its middle and scaled, with the matrix that maps its points, 2 × 3."""
    height, width = picture.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[:, 2] += np.array([width, height]) * (scale - 1) / 2
    size = round(width * scale), round(height * scale)
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE), matrix


def main() -> None:
    options(__doc__).parse_args()
    cv2.setNumThreads(1)
    pictures = list(photos())
    print(f"{machine()}, one thread; {len(pictures)} photos with {len(FACES)} faces")
    for kind in (HAAR, CENTER_FACE):
        detect = load_detector(kind)
        assert detect
        for variant, (degrees, scale) in VARIANTS.items():
            found, false, seconds = 0, 0, 0.0
            for name, picture in pictures:
                turned, matrix = changed(picture, degrees, scale)
                began = time.perf_counter()
                faces = detect(turned)
                seconds += time.perf_counter() - began
                middles = [np.array([face.x + face.width / 2, face.y + face.height / 2]) for face in faces]
                hits = 0
                if name in FACES:
                    x, y, side = FACES[name]
                    apart = [np.hypot(*(middle - matrix @ (x, y, 1))) for middle in middles]
                    hits = sum(distance < scale * side / 3 for distance in apart)
                found += min(hits, 1)
                false += len(faces) - min(hits, 1)
            print(f"{kind}, {variant}: {found} of {len(FACES)} found, {false} false, {len(pictures) / seconds:.1f}/s")


if __name__ == "__main__":
    main()
