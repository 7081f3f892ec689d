"""The images that the benchmarks of scoring work on: small faces, and photos of 1 to 12 megapixels."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fer_ray.dataset.store import PreparedDataset
from fer_ray.sources.synthetic import synthetic_faces

_FOLDERS = 100
_PHOTOS = 60  # different ones; the rest are links to these, so that a disk and its cache hold them


def write_faces(folder: Path, count: int, dataset: Path | None) -> None:
    """Write so many JPEGs of 48 × 48 pixels, from a prepared dataset or else drawn, over a hundred folders."""
    if dataset is None:
        faces = synthetic_faces(min(count, 2000), seed=0)[0]
    else:
        prepared = PreparedDataset(dataset)
        faces = np.concatenate([prepared.load(split).images for split in prepared.info.splits])
    encoded = [cv2.imencode(".jpg", face)[1].tobytes() for face in faces]
    for number, file in _files(folder, count):
        file.write_bytes(encoded[number % len(encoded)])


def write_photos(folder: Path, count: int) -> None:
    """Write so many JPEGs of 1 to 12 megapixels with a structure on all scales, as photos have."""
    generator = np.random.default_rng(0)
    first = list[Path]()
    for number, file in _files(folder, count):
        if number >= _PHOTOS:
            file.hardlink_to(first[number % _PHOTOS])
            continue
        megapixels = generator.uniform(1, 12)
        width = int(np.sqrt(megapixels * 1e6 * 4 / 3))
        height = int(megapixels * 1e6 / width)
        picture = np.zeros((height, width, 3), np.float32)
        for scale in (2, 8, 32, 128):
            coarse = generator.normal(size=(height // scale + 2, width // scale + 2, 3)).astype(np.float32)
            picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * scale**0.7
        pixels = np.clip(128 + 12 * picture / picture.std() * 4, 0, 255).astype(np.uint8)
        file.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())
        first.append(file)


def _files(folder: Path, count: int) -> Iterator[tuple[int, Path]]:
    for number in range(count):
        file = folder / f"{number % _FOLDERS:02d}" / f"{number:07d}.jpg"
        if number < _FOLDERS:
            file.parent.mkdir(parents=True, exist_ok=True)
        yield number, file
