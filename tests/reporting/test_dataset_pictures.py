"""The pictures of a dataset: the numbers and words on them."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fer_ray.dataset.quality import CopyGroup
from fer_ray.dataset.store import SplitInfo
from fer_ray.reporting.dataset import save_copies, save_quality


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that gets the texts of every figure that is saved."""
    texts: list[str] = []
    save = Figure.savefig

    def saved(figure: Figure, *args: object, **kwargs: object) -> None:
        save(figure, *args, **kwargs)
        texts.extend(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))

    monkeypatch.setattr(Figure, "savefig", saved)
    return texts


def info(rows: int, **counts: int) -> SplitInfo:
    return SplitInfo(rows=rows, labels={"happy": rows}, **counts)


def test_flaws_have_numbers_and_shares_of_each_split(drawn: list[str], tmp_path: Path) -> None:
    save_quality(
        tmp_path / "quality.png",
        {"train": info(10_000, duplicates=1236, flat=3), "test": info(500, leaked=20, conflicts=5)},
    )
    assert {"1,236 (12.4%)", "3 (0.03%)", "20 (4.0%)", "5 (1.0%)"} <= set(drawn)
    assert {"train (10,000 images)", "test (500 images)", "exact copies of a train image"} <= set(drawn)
    assert sum(text.endswith("%)") for text in drawn) == 4
    assert not any("nearly" in text for text in drawn)
    save_quality(tmp_path / "near.png", {"train": info(100, near_duplicates=7), "test": info(50, near_leaked=2)})
    assert {"7 (7.0%)", "2 (4.0%)", "nearly equal to a train image"} <= set(drawn)


def test_copies_have_their_splits_and_labels(drawn: list[str], tmp_path: Path) -> None:
    groups = [CopyGroup(number, {"train": 4, "test": 1}, {"angry": 3, "sad": 2}) for number in range(5)]
    save_copies(tmp_path / "duplicates.png", groups, np.zeros((5, 48, 48), np.uint8))
    assert drawn.count("5 times:\n4 in train\n1 in test\n3 × angry\n2 × sad") == 5
