"""Search spaces: what may be written, what is drawn, and that whatever is drawn is a configuration."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_ray.config.files import load_config, load_search_space, space_from_yaml, to_yaml
from fer_ray.config.paths import value_at
from fer_ray.errors import UsageError
from fer_ray.search.parameters import draw, parameters_of, recall

SPACE = """
search:
  model.dropout: {uniform: [0.0, 0.6]}
  optimizer.name: {categorical: [sgd, adamw]}
  loss.class_multipliers.disgust: {log_uniform: [0.5, 2.0]}
  schedule.step_at: {categorical: [[0.5, 0.75], [0.3]]}
"""


@pytest.mark.parametrize(
    "distribution",
    [
        "{uniform: [1, 0]}",
        "{log_uniform: [0, 1]}",
        "{int: [0.5, 2]}",
        "{uniform: [0, 1], int: [0, 1]}",
        "{uniform: [0, .inf]}",
        "{categorical: []}",
        "{categorical: [0.1, 0.1]}",
        "{choice: {0.1: , 0.2: }}",
    ],
)
def test_bad_distribution(distribution: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"search: {{model.dropout: {distribution}}}\n")
    with pytest.raises(UsageError) as caught:
        load_search_space(tmp_path / "s.yaml")
    assert len(caught.value.problems) == 1 and "search.model.dropout" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("path", "written", "held"),
    [
        ("loss.class_weights", "[null, [1, 5, 1, 1, 1, 1, 1]]", (None, (1.0, 5.0, *[1.0] * 5))),
        ("schedule.step_at", "[[0.5, 0.75], [0.3], []]", ((0.5, 0.75), (0.3,), ())),
        ("loss.teachers", "[[], a, [a, b]]", ((), ("a",), ("a", "b"))),
        ("optimizer.learning_rate", "[1e-1, 1, '1e-3']", (0.1, 1.0, 0.001)),
        ("training.batch_size", "[128.0, '64']", (128, 64)),
        ("training.patience", "[null, 2.0]", (None, 2)),
        ("loss.soft_labels", "[0, yes, ]", (False, True)),
    ],
)
def test_values_take_the_type_of_their_field(path: str, written: str, held: Any, tmp_path: Path) -> None:
    """From the file to the trials' configurations, through the study, and back from what is written of both."""
    (tmp_path / "s.yaml").write_text(f"search: {{{path}: {{categorical: {written}}}}}")
    space = load_search_space(tmp_path / "s.yaml")
    assert repr(space.search[path].values) == repr(held)
    assert space_from_yaml(to_yaml(space), "study") == space
    spaces, study, seen = {"s": space}, optuna.create_study(), set[str]()
    first = parameters_of(space.defaults, "s", spaces)
    assert first is not None
    study.enqueue_trial(first)
    for number in range(20):
        trial = study.ask()
        draw(trial, spaces)
        study.tell(trial, 0.5)
        _, drawn, config = recall(study.trials[-1].params, spaces)
        assert number or config == space.defaults
        assert repr(drawn[path]) == repr(value_at(config, path))
        assert parameters_of(config, "s", spaces) == trial.params
        (tmp_path / "best.yaml").write_text(to_yaml(config))
        assert load_config(tmp_path / "best.yaml") == config
        seen.add(repr(drawn[path]))
    assert seen == set(map(repr, held))


@pytest.mark.parametrize(
    ("override", "path", "held"),
    [
        ("model.dropout=0.9", "model.dropout", 0.9),  # outside of what was searched
        ("schedule.step_at=[0.2, 0.4]", "schedule.step_at", (0.2, 0.4)),
        ("model={dropout: 0.2}", "model.dropout", 0.2),
        ("training.epochs=3", "training.epochs", 3),  # which is not searched
    ],
)
def test_what_is_set_is_not_searched(
    override: str, path: str, held: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    before, space = load_search_space(tmp_path / "s.yaml"), load_search_space(tmp_path / "s.yaml", [override])
    assert set(space.search) == set(before.search) - {path} and value_at(space, path) == held
    assert ("in every trial, as --set says" in capfd.readouterr().err) == (path in before.search)
    assert all(path not in values for values in space.candidates())


def test_training_leaves_the_search_out(tmp_path: Path) -> None:
    """Ranges that would refuse a search refuse no training, whatever is wrong with them."""
    ranges = ["{int: [0, 90]}", "{categorical: [7, 7]}", "{gauss: [0, 1]}", "3"]
    for one in ranges:
        (tmp_path / "s.yaml").write_text(f"training: {{epochs: 7}}\nsearch: {{training.epochs: {one}}}")
        assert load_config(tmp_path / "s.yaml", ["training.batch_size=32"]).training.epochs == 7
        with pytest.raises(UsageError):
            load_search_space(tmp_path / "s.yaml")
