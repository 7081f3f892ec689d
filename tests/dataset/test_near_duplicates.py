"""The perceptual hash, and the search that compares no more pairs than it must."""

import cv2
import numpy as np

from fer_ray.dataset.near_duplicates import NEAR_DISTANCE, earliest_near, hash_images
from fer_ray.sources.synthetic import synthetic_faces


def bits_apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.bitwise_count(hash_images(left) ^ hash_images(right))


def test_light_compression_and_size_change_few_bits_and_another_face_many() -> None:
    faces = synthetic_faces(100, seed=0)[0]
    dark = faces // 2
    assert bits_apart(dark, dark + 40).max() == bits_apart(dark, dark * 2).max() == 0
    packed = [cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 60])[1] for face in faces]
    unpacked = np.stack([cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in packed])
    assert np.median(bits_apart(faces, unpacked)) <= 1
    assert np.median(bits_apart(faces, np.roll(faces, 1, axis=0))) > 12
    larger = np.stack([cv2.resize(face, (144, 144), interpolation=cv2.INTER_CUBIC) for face in faces])
    assert np.median(bits_apart(faces, larger)) <= 1


def test_every_pair_within_the_distance_is_found() -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 1 << 64, 300, np.uint64)
    hashes = np.repeat(centres, 4)
    for hash_number in range(len(hashes)):
        flipped = rng.choice(64, rng.integers(0, 8), replace=False)
        hashes[hash_number] ^= np.uint64(sum(1 << int(bit) for bit in flipped))
    rng.shuffle(hashes)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= NEAR_DISTANCE
    expected = near.argmax(axis=1)
    assert (expected < np.arange(len(hashes))).any()
    np.testing.assert_array_equal(earliest_near(hashes), expected)
