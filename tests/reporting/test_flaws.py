"""The pictures of what is wrong with a dataset: the numbers and words on them."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fer_ray.dataset.store import SplitInfo
from fer_ray.reporting.dataset_pictures import PicturedGroup, duplicate_groups, mean_faces, quality_chart


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


def test_quality_shows_numbers_and_shares_of_each_split(drawn: list[str], tmp_path: Path) -> None:
    splits = {"train": info(10_000, duplicates=1236, flat=3), "test": info(500, leaked=20, conflicts=5)}
    quality_chart(splits, tmp_path / "quality.png")
    assert {"1,236 (12.4%)", "3 (0.03%)", "20 (4.0%)", "5 (1.0%)"} <= set(drawn)
    assert {"train (10,000 images)", "test (500 images)"} <= set(drawn)
    assert "exact copies of\na train image" in drawn and not any("nearly" in text for text in drawn)
    assert sum(text.endswith("%)") for text in drawn) == 4
    assert (tmp_path / "quality.png").stat().st_size > 5000


def test_quality_shows_near_duplicates_where_they_were_looked_for(drawn: list[str], tmp_path: Path) -> None:
    train, test = info(100, near_duplicates=7, near_leaked=0), info(50, near_duplicates=3, near_leaked=2)
    quality_chart({"train": train, "test": test}, tmp_path / "quality.png")
    assert {"7 (7.0%)", "3 (6.0%)", "2 (4.0%)"} <= set(drawn)


def test_duplicate_groups_say_where_and_under_what_copies_stand(drawn: list[str], tmp_path: Path) -> None:
    face = np.zeros((48, 48), np.uint8)
    groups = [PicturedGroup(face, {"train": 4, "test": 1}, {"angry": 3, "sad": 2})] * 5
    duplicate_groups({"Most copies": groups, "Copies under most labels": []}, tmp_path / "duplicates.png")
    assert drawn.count("5 times\n4 in train\n1 in test\nangry × 3\nsad × 2") == 5
    assert "Most copies" in drawn and "Copies under most labels" not in drawn


def test_mean_faces_are_named_and_counted(drawn: list[str], tmp_path: Path) -> None:
    means = {"happy": np.zeros((48, 48)), "sad": np.full((48, 48), 200.0)}
    mean_faces(means, {"angry": 0, "happy": 1200, "sad": 3}, tmp_path / "mean.png", title="means")
    assert {"happy\n1,200", "sad\n3", "means"} <= set(drawn)
