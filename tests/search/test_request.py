"""What a search was asked to do: checked whole, and a cluster shared out."""

from pathlib import Path

import pytest

from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.search.request import SearchArguments, check_request, parse_duration

SPACES = Path(__file__).parents[2] / "search_spaces"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "0s", "-5m", "1d", "1h30m", ""])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(UsageError, match="such as 90s, 30m or 2h"):
        parse_duration(text)


@pytest.mark.parametrize("file", sorted(SPACES.glob("*.yaml")), ids=lambda file: str(file.stem))
def test_shipped_spaces(file: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    request = check_request(SearchArguments(tiny_dataset.path, [file], tmp_path / "run", 1))
    space = request.spaces[file.stem]
    assert space.model.name == file.stem
    assert {"optimizer.learning_rate", "model.dropout", "loss.class_weight_power"} <= set(space.search)


def test_all_problems_at_once(tmp_path: Path) -> None:
    outside, empty = tmp_path / "outside.yaml", tmp_path / "empty.yaml"
    outside.write_text("model: {name: cnn4, dropout: 0.5}\nsearch: {model.dropout: {uniform: [0, 0.3]}}")
    empty.write_text("model: {name: cnn3}")
    with pytest.raises(UsageError) as failure:
        check_request(
            SearchArguments(
                tmp_path / "nothing",
                [outside, empty, empty, tmp_path / "missing.yaml"],
                "s3:///run",
                trials=0,
                time_budget="soon",
                storage="nonsense",
                max_concurrent=0,
            )
        )
    expected = [
        ("outside.yaml", "cnn4", "Did you mean 'cnn3'"),
        ("outside.yaml", "model.dropout = 0.5", "[0.0, 0.3]"),
        ("empty.yaml", "nothing to search"),
        ("empty.yaml", "second space named 'empty'"),
        ("missing.yaml", "no such file"),
        ("nothing", "no such folder"),
        ("s3:///run",),
        ("--time-budget soon",),
        ("--storage nonsense",),
        ("--trials 0",),
        ("--max-concurrent 0",),
    ]
    for parts in expected:
        assert any(all(part in line for part in parts) for line in failure.value.problems), parts
