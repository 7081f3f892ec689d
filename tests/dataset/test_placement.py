"""What is held in memory and what streams."""

from pathlib import Path

import pytest
from datasets_made import write_prepared

from fer_ray.dataset.placement import Placement
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.dataset.stream import StreamedSplit
from fer_ray.errors import UsageError

ROW = 8 * 8 + 128


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    return write_prepared(tmp_path / "data", {"train": [0, 1] * 100, "validation": [0, 1] * 10})


@pytest.mark.parametrize(
    ("workers", "rows_of_memory", "held"),
    [
        (1, 220, {"train", "validation"}),
        (1, 219, {"validation"}),
        (1, 40, {"validation"}),
        (1, 39, set()),
        (4, 55, {"train", "validation"}),
        (4, 54, {"validation"}),
    ],
)
def test_a_split_that_fits_is_held(dataset: PreparedDataset, workers: int, rows_of_memory: int, held: set[str]) -> None:
    placement = Placement(dataset, workers, rows_of_memory * ROW)
    assert {split for split in ("train", "validation") if placement.holds(split)} == held


def test_the_line_shows_the_arithmetic(dataset: PreparedDataset) -> None:
    assert str(Placement(dataset, 1, 100 * ROW)) == (
        "Data: train 200 rows × 192 bytes = 37.5 KiB, streamed from disk; validation 20 rows × 192 bytes = 3.8 KiB,"
        " held in memory; limit 18.8 KiB (--data-memory)."
    )
    assert str(Placement(dataset, 3, 1 << 20)).startswith("Data a worker: train 67 rows × 192 bytes = 12.6 KiB, held")


def test_what_streams_gets_what_the_rest_leaves(dataset: PreparedDataset) -> None:
    placement = Placement(dataset, 1, 100 * ROW)
    train, validation = placement.load("train", 0), placement.load("validation", 0)
    assert isinstance(train, StreamedSplit) and train.memory == 80 * ROW
    assert isinstance(validation, Split) and len(validation) == 20


def test_memory_too_small_to_stream_is_told_before_anything_starts(dataset: PreparedDataset) -> None:
    """The less of what streaming and holding take is named; here it is holding."""
    with pytest.raises(UsageError, match=r"^--data-memory: 18\.8 KiB is too little\.") as raised:
        Placement(dataset, 1, 100 * ROW).require_room(batch=8)
    assert f"Raise --data-memory to at least {220 * ROW:,} bytes." in str(raised.value)
    Placement(dataset, 1, 220 * ROW).require_room(batch=8)
