"""Splits that memory doesn't hold: every row once, well mixed, within the memory given."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from datasets_made import numbers_in, write_prepared

from fer_ray.dataset.row_groups import deal, mixed, pieces_of
from fer_ray.dataset.store import PreparedDataset
from fer_ray.dataset.stream import StreamedSplit
from fer_ray.errors import DataError, UsageError

MEMORY = 1 << 20
SORTED = [label for label in range(7) for _ in range(150)]


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    """1,050 rows sorted by label, every tenth of them unlabelled, in row groups of 16 or fewer."""
    labels = [None if number % 10 == 3 else label for number, label in enumerate(SORTED)]
    return write_prepared(tmp_path / "data", {"train": labels})


def labelled(dataset: PreparedDataset) -> list[int]:
    return [number for number, label in enumerate(dataset.table("train")["label"].to_pylist()) if label is not None]


@pytest.mark.parametrize("workers", [1, 2, 3, 20])
def test_all_ranks_together_have_each_labelled_row_once(dataset: PreparedDataset, workers: int) -> None:
    shares = [StreamedSplit(dataset, "train", rank, workers, MEMORY) for rank in range(workers)]
    for batches in (
        [list(share.shuffled(5, 4)) for share in shares],
        [list(share.in_order(7)) for share in shares],
    ):
        rows = [[number for block in own for number in numbers_in(block.images)] for own in batches]
        assert sorted(number for own in rows for number in own) == labelled(dataset)
        assert [len(own) for own in rows] == [len(share) for share in shares]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    sums = np.sum([share.label_sums for share in shares], axis=0)
    assert sums.tolist() == list(dataset.info.splits["train"].labels.values())


def test_batches_are_as_many_as_asked_and_of_nearly_equal_size(dataset: PreparedDataset) -> None:
    sizes = [len(block) for block in StreamedSplit(dataset, "train", 0, 2, MEMORY).shuffled(0, 13)]
    assert len(sizes) == 13 and max(sizes) - min(sizes) <= 1


def test_seed_rank_and_workers_decide_the_order(dataset: PreparedDataset) -> None:
    def order(seed: int, memory: int = MEMORY) -> list[int]:
        split = pickle.loads(pickle.dumps(StreamedSplit(dataset, "train", 0, 1, memory)))
        return [number for block in split.shuffled(seed, 8) for number in numbers_in(block.images)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_rows_keep_their_labels_and_shares(tmp_path: Path) -> None:
    dataset = write_prepared(tmp_path / "data", {"train": SORTED}, soft=True)
    split = StreamedSplit(dataset, "train", 0, 1, MEMORY)
    for block in split.shuffled(0, 40):
        assert block.labels.tolist() == [SORTED[number] for number in numbers_in(block.images)]
        assert block.soft_labels is not None
        assert (block.soft_labels.argmax(1) == block.labels).all() and np.allclose(block.soft_labels.max(1), 0.75)
    assert split.share_sums == pytest.approx(np.full(7, 150.0))


def test_labels_of_a_sorted_split_are_mixed_in_a_buffer_that_holds_a_tenth(tmp_path: Path) -> None:
    """Batches of 64 stray from the split's shares hardly more than batches drawn from all rows at once would."""
    labels = [label for label in range(7) for _ in range(3000)]
    dataset = write_prepared(tmp_path / "data", {"train": labels}, group_rows=16, file_rows=1000)
    row = dataset.info.row_bytes
    split = StreamedSplit(dataset, "train", 0, 1, 16 * 75 * row + 2300 * row)
    assert 2000 < split.capacity(64) < 2500
    shares = np.array([np.bincount(b.labels, minlength=7) / len(b) for b in split.shuffled(0, len(labels) // 64)])
    at_random = (1 / 7 * 6 / 7 / 64) ** 0.5
    assert shares.std(axis=0).max() < 1.25 * at_random
    stretches = np.array([part.mean(axis=0) for part in np.array_split(shares, 10)])
    assert np.abs(stretches - 1 / 7).max() < 0.05


def test_memory_too_small_to_mix_is_refused(dataset: PreparedDataset) -> None:
    tight = StreamedSplit(dataset, "train", 0, 1, 1000)
    with pytest.raises(UsageError, match="are the least to mix rows in"):
        next(tight.shuffled(0, 30))
    enough = sum(tight.needed(-(-len(tight) // 30)))
    assert len(list(StreamedSplit(dataset, "train", 0, 1, enough).shuffled(0, 30))) == 30


def test_a_damaged_file_is_named(dataset: PreparedDataset) -> None:
    file = dataset.files("train")[1]
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{file.name}: not readable.*Prepare the dataset again"):
        list(StreamedSplit(dataset, "train", 0, 1, MEMORY).in_order(64))


def test_a_missing_file_is_noticed(dataset: PreparedDataset) -> None:
    dataset.files("train")[-1].unlink()
    with pytest.raises(DataError, match=r"holds 1024 rows, dataset\.json says 1050"):
        len(StreamedSplit(dataset, "train", 0, 1, MEMORY))


def test_neighbours_in_a_mixed_order_come_from_all_over(dataset: PreparedDataset) -> None:
    pieces = pieces_of(dataset, "train")
    order = mixed(pieces, 10, np.random.default_rng(0))
    assert sorted(order, key=pieces.index) == pieces
    places = np.array([pieces.index(piece) for piece in order]) * 10 // len(pieces)
    assert all(len(set(places[start : start + 10])) >= 8 for start in range(0, len(pieces) - 10, 10))


def test_a_share_takes_its_row_groups_from_all_over(dataset: PreparedDataset) -> None:
    pieces = pieces_of(dataset, "train")
    for rank in range(2):
        places = [pieces.index(piece) for piece in deal(pieces, rank, 2) if piece in pieces]
        assert np.mean(places) == pytest.approx(len(pieces) / 2, abs=2)
