"""What the table and the pictures of a dataset say."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fer_ray.dataset.quality import CopyGroup
from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.reporting.dataset import save_copies, split_table


def table_of(**splits: dict[str, int]) -> str:
    infos = {
        name: SplitInfo(rows=counts.pop("rows"), labels=dict.fromkeys(EMOTIONS, 1), **counts)
        for name, counts in splits.items()
    }
    info = DatasetInfo(
        fer_ray_version="", source="", source_format="", size=48, splits=infos, mean=0, std=1, fingerprint=""
    )
    return split_table(info).as_text()


def test_flaws_have_numbers_and_shares_of_each_split() -> None:
    lines = table_of(
        train={"rows": 10_000, "duplicates": 1236, "flat": 3}, test={"rows": 500, "leaked": 20, "unlabelled": 7}
    ).splitlines()
    assert lines[1].split() == ["angry", "1", "1"]
    assert [" ".join(line.split()) for line in lines[8:]] == [
        "without a label 0 7",
        "all images 10,000 500",
        "exact copies of an earlier image 1,236 (12.4%) 0",
        "exact copies of a train image – 20 (4.0%)",
        "same image with another label 0 0",
        "one flat colour 3 (0.03%) 0",
    ]
    near = table_of(train={"rows": 100, "near_duplicates": 7, "near_leaked": 0}, test={"rows": 50, "near_leaked": 2})
    assert near.splitlines()[-1].split()[-3:] == ["–", "2", "(4.0%)"]


def test_copies_have_their_splits_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, save = list[str](), Figure.savefig

    def saved(figure: Figure, *args: object, **kwargs: object) -> None:
        save(figure, *args, **kwargs)
        texts.extend(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))

    monkeypatch.setattr(Figure, "savefig", saved)
    groups = [CopyGroup(number, {"train": 4, "test": 1}, {"angry": 3, "sad": 2}) for number in range(5)]
    save_copies(tmp_path / "duplicates.png", groups, np.zeros((5, 48, 48), np.uint8))
    assert texts.count("5 times:\n4 in train\n1 in test\n3 × angry\n2 × sad") == 5
