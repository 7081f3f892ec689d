"""The images that the benchmarks of scoring use: small faces, and photos of 1 to 12 megapixels."""

from pathlib import Path

import cv2
import numpy as np

from fer_ray.dataset.store import PreparedDataset
from fer_ray.sources.synthetic import synthetic_faces

_FOLDERS = 100
_PHOTOS = 60  # different ones; the rest are links to these, so that a disk and its cache hold them


def write_faces(folder: Path, count: int, dataset: Path | None = None) -> list[Path]:
    """Write JPEGs of 48 × 48 pixels into a hundred folders, drawn ones or those of a prepared dataset."""
    if dataset is None:
        faces = synthetic_faces(min(count, 2000), seed=0)[0]
    else:
        prepared = PreparedDataset(dataset)
        faces = np.concatenate([prepared.load(split).images for split in prepared.info.splits])
    encoded = [cv2.imencode(".jpg", face)[1].tobytes() for face in faces]
    files = _files(folder, count)
    for number, file in enumerate(files):
        file.write_bytes(encoded[number % len(encoded)])
    return files


def write_photos(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of 1 to 12 megapixels that have structure on all scales, as photos do."""
    generator, files = np.random.default_rng(0), _files(folder, count)
    for file in files[:_PHOTOS]:
        megapixels = generator.uniform(1, 12)
        width = int(np.sqrt(megapixels * 1e6 * 4 / 3))
        height = int(megapixels * 1e6 / width)
        picture = np.zeros((height, width, 3), np.float32)
        for scale in (2, 8, 32, 128):
            coarse = generator.normal(size=(height // scale + 2, width // scale + 2, 3)).astype(np.float32)
            picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * scale**0.7
        pixels = np.clip(128 + 12 * picture / picture.std() * 4, 0, 255).astype(np.uint8)
        file.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())
    for number, file in enumerate(files[_PHOTOS:]):
        file.hardlink_to(files[number % _PHOTOS])
    return files


def _files(folder: Path, count: int) -> list[Path]:
    for number in range(_FOLDERS):
        (folder / f"{number:02d}").mkdir(parents=True, exist_ok=True)
    return [folder / f"{number % _FOLDERS:02d}" / f"{number:07d}.jpg" for number in range(count)]
