"""What is found in rows: copies, near copies, the worst groups; and what is dropped."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fer_ray.dataset.assemble import Spool, SpooledRows, mean_by_class
from fer_ray.dataset.quality import drop_leaks, find, worst_groups
from fer_ray.emotions import EMOTIONS
from fer_ray.sources.name_options import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source
from fer_ray.sources.synthetic import synthetic_faces

Given = list[tuple[str, int | None, np.ndarray]]
FACES = synthetic_faces(12, seed=3)[0]


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Callable[[Given], tuple[SpooledRows, Spool]]]:
    """Collect rows of split, label and picture, named 0, 1, … ."""
    with Spool(tmp_path / "pixels", 48) as spool:

        def spooled(given: Given) -> tuple[SpooledRows, Spool]:
            builder = RowBuilder(48)
            for number, (split, label, picture) in enumerate(given):
                builder.add(f"{number}", f"in/{number}", split, None if label is None else str(label), picture, 48, 48)
            spool.add(builder.table())
            return spool.rows(Source("made", "made", [], iter), NameOptions())[0], spool

        yield spooled


def nearly(face: np.ndarray) -> np.ndarray:
    return np.clip(face.astype(int) + np.random.default_rng(0).integers(-2, 3, face.shape), 0, 255).astype(np.uint8)


def test_near_copies_are_told_from_exact_ones(collect: Callable[[Given], tuple[SpooledRows, Spool]]) -> None:
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
        ]
    )
    found = find(rows, spool)
    assert {name: np.flatnonzero(flag).tolist() for name, flag in found.flags.items()} == {
        "flat": [],
        "leaked": [3],
        "conflict": [],
        "near_duplicate": [0, 6],
        "near_leaked": [0, 4],
    }
    assert found.near is not None
    assert found.near.tolist() == [1, -1, -1, -1, 1, -1, 5, -1]


def test_flat_pictures_are_near_to_none(collect: Callable[[Given], tuple[SpooledRows, Spool]]) -> None:
    rows, spool = collect([("train", 0, np.full((48, 48), shade, np.uint8)) for shade in (0, 7, 255)])
    found = find(rows, spool)
    assert found.flags["flat"].all() and not found.flags["near_duplicate"].any()


def test_dropping_leaks_names_the_twin_and_leaves_the_later_row(
    collect: Callable[[Given], tuple[SpooledRows, Spool]],
) -> None:
    a, b, c = FACES[:3]
    rows, spool = collect(
        [
            ("test", 0, a),
            ("train", 0, a),
            ("train", 3, a),
            ("train", 0, b),
            ("train", 0, b),  # a copy within train stays
            ("validation", None, c),
            ("test", 0, c),
            ("train", 0, c),
        ]
    )
    dropped = drop_leaks(rows)
    assert dropped.to_pylist() == [
        {
            "id": str(number),
            "path": f"in/{number}",
            "reason": f"left out by --drop-leaks: the same image is in {where}",
        }
        for number, where in ((1, "test as 0"), (2, "test as 0"), (7, "validation as 5"))
    ]
    assert rows.of_split("train").tolist() == [3, 4]
    found = find(rows, spool)
    left = rows.in_order()
    assert not found.flags["leaked"][left].any() and not found.flags["conflict"][left].any()
    assert found.first[left].tolist() == [3, 3, 5, 0, 5]
    assert len(drop_leaks(rows)) == 0


def test_worst_groups_by_copies_and_by_labels(collect: Callable[[Given], tuple[SpooledRows, Spool]]) -> None:
    a, b, c, d = FACES[:4]
    given: Given = [("train", 0, a)] * 4 + [("train", 1, b), ("validation", 2, b), ("test", None, b)]
    given += [("test", label, c) for label in (3, 4)] + [("train", 5, d)]
    rows, spool = collect(given)
    largest, mixed = worst_groups(rows, find(rows), 8)
    assert [(group.splits, group.labels) for group in largest] == [
        ({"train": 4}, {"angry": 4}),
        ({"train": 1, "validation": 1, "test": 1}, {"disgust": 1, "fear": 1}),
        ({"test": 2}, {"happy": 1, "sad": 1}),
    ]
    assert mixed == largest[1:]
    np.testing.assert_array_equal(spool.pixels(np.array([largest[1].first]))[0], b)
    assert [len(groups) for groups in worst_groups(rows, find(rows), 1)] == [1, 1]


def test_mean_by_class(collect: Callable[[Given], tuple[SpooledRows, Spool]]) -> None:
    rows, spool = collect([("train", number % 2 or None, face) for number, face in enumerate(FACES)])
    means = mean_by_class(spool, rows, rows.of_split("train"))
    assert list(means) == [EMOTIONS[1]]
    np.testing.assert_allclose(means[EMOTIONS[1]], FACES[1::2].mean(0))
