"""What a search was asked to do: checked whole, and a cluster shared out."""

from pathlib import Path

import pytest

from fer_ray.config.options import TuneOptions, parse_duration
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.search.request import check_request

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
    request = check_request(TuneOptions(tiny_dataset.path, [file], tmp_path / "run", 1))
    space = request.spaces[file.stem]
    assert space.model.name == file.stem
    assert {"optimizer.learning_rate", "model.dropout", "loss.class_weight_power"} <= set(space.search)


def test_all_problems_at_once(tmp_path: Path) -> None:
    outside, empty = tmp_path / "outside.yaml", tmp_path / "empty.yaml"
    outside.write_text("model: {dropout: 0.5}\nsearch: {model.dropout: {uniform: [0, 0.3]}}")
    empty.write_text("model: {name: cnn3}")
    spaces = [outside, empty, empty, tmp_path / "missing.yaml"]
    with pytest.raises(UsageError) as failure:
        TuneOptions(tmp_path / "nothing", spaces, tmp_path / "run", trials=1, time_budget="soon")
    expected = [
        ("outside.yaml", "model.dropout = 0.5", "[0.0, 0.3]"),
        ("empty.yaml", "nothing to search"),
        ("empty.yaml", "second space named 'empty'"),
        ("missing.yaml", "no such file"),
        ("nothing", "no such folder"),
        ("--time-budget soon",),
    ]
    for parts in expected:
        assert any(all(part in line for part in parts) for line in failure.value.problems), parts
