"""What is found in rows: copies, near copies by a perceptual hash, conflicts; and what is taken for validation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_ray.dataset.assemble import Spool, SpooledRows, take_validation
from fer_ray.dataset.near_duplicates import NEAR_DISTANCE, earliest_near, hash_images
from fer_ray.dataset.quality import find
from fer_ray.emotions import NUM_CLASSES
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source
from fer_ray.sources.synthetic import synthetic_faces

Given = list[tuple[str, int | None, np.ndarray]]
Collect = Callable[[Given], tuple[SpooledRows, Spool]]
FACES = synthetic_faces(12, seed=3)[0]


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Collect]:
    """Collect rows of split, label and picture, named 0, 1, … ."""
    with (tmp_path / "pixels").open("w+b") as file:

        def spooled(given: Given) -> tuple[SpooledRows, Spool]:
            builder, spool = RowBuilder(48), Spool(file, 48)
            for number, (split, label, picture) in enumerate(given):
                builder.add(f"{number}", f"in/{number}", split, None if label is None else str(label), picture, 48, 48)
            spool.add(builder.table())
            return spool.rows(Source("made", "made", [], iter), NameOptions())[0], spool

        yield spooled


def nearly(face: np.ndarray) -> np.ndarray:
    return np.clip(face.astype(int) + np.random.default_rng(0).integers(-2, 3, face.shape), 0, 255).astype(np.uint8)


def test_copies_conflicts_and_flat_images(collect: Collect) -> None:
    a, b, c, d = FACES[:4]
    rows, _ = collect(
        [
            ("test", 3, a),  # in train below, under another label
            ("validation", 0, b),
            ("train", 3, b),
            ("train", 2, a),
            ("train", 2, a),
            ("validation", 1, c),
            ("test", 1, c),  # in validation, but not in train
            ("train", 6, np.full((48, 48), 9, np.uint8)),
            ("train", 5, d),
        ]
    )
    found = find(rows)
    assert found.first.tolist() == [3, 2, 2, 3, 3, 5, 5, 7, 8] and (found.near == -1).all()
    assert {name: np.flatnonzero(flag).tolist() for name, flag in found.flags.items()} == {
        "flat": [7],
        "leaked": [0, 1],
        "conflict": [0, 1, 2, 3, 4],
    }


def test_near_copies_are_told_from_exact_ones(collect: Collect) -> None:
    a, b, c = FACES[:3]
    rows, spool = collect(
        [
            ("test", 0, nearly(a)),  # nearly equals a train row
            ("train", 0, a),
            ("train", 0, a),  # an exact copy, so no near one
            ("validation", 0, a),  # leaked exactly, so not nearly
            ("test", 0, nearly(a)),  # a copy of row 0, so no near duplicate, but near to train
            ("validation", 1, b),
            ("test", 1, nearly(b)),  # near to validation only
            ("train", 2, c),
            ("train", 2, np.zeros((48, 48), np.uint8)),  # flat pictures are near to none
            ("train", 2, np.full((48, 48), 7, np.uint8)),
        ]
    )
    found = find(rows, spool)
    near = {name: np.flatnonzero(found.flags[name]).tolist() for name in ("near_duplicate", "near_leaked", "leaked")}
    assert near == {"near_duplicate": [0, 6], "near_leaked": [0, 4], "leaked": [3]}
    assert found.near.tolist() == [1, -1, -1, -1, 1, -1, 5, -1, -1, -1]


def test_validation_is_a_stratified_share_of_train_with_copies_together(collect: Collect) -> None:
    images, labels = synthetic_faces(300, seed=0)
    given: Given = [("train", int(label), image) for label, image in zip(labels, images, strict=True)]
    rows, _ = collect(given + given[:60])
    before = rows.splits.copy()
    taken = []
    for seed in (0, 1):
        rows.splits = before.copy()
        assert take_validation(rows, 0.2, seed) == len(rows.of_split("validation"))
        for label in range(NUM_CLASSES):
            of_label = rows.splits[rows.labels == label]
            assert (of_label == 1).mean() == pytest.approx(0.2, abs=0.03)
        assert not find(rows).flags["leaked"].any()
        taken.append(rows.of_split("validation").tolist())
    assert taken[0] != taken[1]


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
