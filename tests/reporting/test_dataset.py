"""What the table of a dataset says."""

from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.reporting.dataset import split_table


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
