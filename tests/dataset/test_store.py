"""A prepared dataset: what it says before training, and its rows in memory or memory-mapped from a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets_made import numbers_in, write_prepared

from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.training.rows import TrainingRows, fitting_splits

LABELS = [None if row % 10 == 3 else row // 150 for row in range(1050)]
LABELLED = [row for row, label in enumerate(LABELS) if label is not None]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedDataset:
    """1,050 rows sorted by label, 945 of them labelled, 220 bytes each."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    return write_prepared(tmp_path / "data", {"train": LABELS, "validation": LABELS[::10]}, soft=True)


def test_missing_labels_are_said_and_a_single_one_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prepared(tmp_path / "some", {"train": [0, 1, 2, 4, 5, 6], "validation": [0]}).check_trainable()
    assert "train has no image of happy, so" in capsys.readouterr().err
    dataset = write_prepared(tmp_path / "one", {"train": [3, 3, None], "validation": [0, 1, 2]})
    with pytest.raises(DataError, match="training needs at least two"):
        dataset.check_trainable()


@pytest.mark.parametrize(
    ("workers", "memory", "fitting"),
    [
        (1, 1050 * 220, {"train", "validation"}),
        (1, 1049 * 220, {"validation"}),
        (4, 264 * 220, {"train", "validation"}),
        (4, 263 * 220, {"validation"}),
    ],
)
def test_splits_that_fit_are_in_memory(dataset: PreparedDataset, workers: int, memory: int, fitting: set[str]) -> None:
    found, line = fitting_splits(dataset, memory, workers)
    assert set(found) == fitting
    assert line.count("in memory") == len(fitting) and line.count("memory-mapped") == 2 - len(fitting)


def test_mapped_rows_equal_those_in_memory_and_leave_no_file(dataset: PreparedDataset, tmp_path: Path) -> None:
    in_memory, mapped = dataset.load("train"), dataset.load("train", mapped=True)
    assert mapped.ids == in_memory.ids and numbers_in(mapped.images) == LABELLED
    for name in ("images", "labels", "leaked", "soft_labels"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(in_memory, name))
    for is_mapped in (True, False):
        shares = [dataset.load("train", is_mapped, rank, 4) for rank in range(4)]
        assert [len(share) for share in shares] == [237, 236, 236, 236]
        assert [numbers_in(share.images) for share in shares] == [LABELLED[rank::4] for rank in range(4)]
        assert [share.labels.tolist() for share in shares] == [in_memory.labels[rank::4].tolist() for rank in range(4)]
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("mapped", [False, True])
def test_every_row_comes_once_in_batches_of_nearly_equal_size(dataset: PreparedDataset, mapped: bool) -> None:
    rows = TrainingRows(dataset.load("train", mapped=mapped), torch.device("cpu"))
    orders = []
    for _ in range(2):
        batches = list(rows.shuffled(torch.Generator().manual_seed(5), 13))
        assert {len(batch.labels) for batch in batches} == {72, 73}
        orders.append([number for batch in batches for number in numbers_in(batch.images.numpy())])
        for batch in batches:
            assert batch.labels.tolist() == [LABELS[number] for number in numbers_in(batch.images.numpy())]
            assert batch.shares is not None and torch.equal(batch.shares.argmax(1), batch.labels)
    assert orders[0] == orders[1] and sorted(orders[0]) == LABELLED and orders[0] != LABELLED
    assert [number for batch in rows.in_order(64) for number in numbers_in(batch.images.numpy())] == LABELLED


def test_a_cache_folder_without_space_is_named(dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(UsageError, match=r"No space left.*Set FER_RAY_CACHE"):
        dataset.load("train", mapped=True)


def test_a_damaged_or_missing_file_is_named(dataset: PreparedDataset) -> None:
    file = dataset.files("train")[1]
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{file.name}: can't be read.*Prepare the dataset again"):
        dataset.load("train")
    file.unlink()
    with pytest.raises(DataError, match=r"holds 887 labelled rows, dataset\.json says 945"):
        dataset.load("train")
