"""What a prepared dataset says of itself before anybody trains on it."""

from pathlib import Path

import pytest
from datasets_made import write_prepared

from fer_ray.errors import DataError


@pytest.mark.parametrize("label", [0, 3, 6])
def test_a_dataset_of_one_label_is_refused(label: int, tmp_path: Path) -> None:
    dataset = write_prepared(tmp_path, {"train": [label, label, None], "validation": [0, 1, 2]})
    with pytest.raises(DataError, match="training needs at least two"):
        dataset.check_trainable()


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 4, 5, 6], list(range(7))])
def test_labels_without_a_row_are_said(labels: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prepared(tmp_path, {"train": labels, "validation": list(range(7))}).check_trainable()
    said = capsys.readouterr().err
    assert ("train has no image of" in said) == (len(labels) < 7)
    assert ("happy" in said) == (3 not in labels)
