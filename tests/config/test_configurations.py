"""Configurations and search spaces: reading, overriding, problems, and that whatever is drawn is a configuration."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_ray.config.files import SHIPPED, load_config, load_search_space, space_from_yaml, to_yaml
from fer_ray.config.paths import value_at
from fer_ray.config.schema import Config
from fer_ray.errors import UsageError
from fer_ray.models import architectures
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
def test_what_is_set(override: str, path: str, held: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
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


def test_yaml_round_trip(tmp_path: Path) -> None:
    lists = ["schedule.step_at=[0.8]", "loss.teachers=runs/a/checkpoint"]
    config = load_config(None, ["optimizer.learning_rate=1e-3", "loss.class_multipliers.disgust=2", *lists])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config
    assert config.optimizer.learning_rate == 0.001
    assert config.schedule.step_at == (0.8,) and config.loss.teachers == ("runs/a/checkpoint",)
    assert (config.loss.class_multipliers.disgust, config.loss.class_multipliers.angry) == (2, 1)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs", "must read path.to.field=value"),
        ("search.training.epochs={int: [1, 2]}", "search: unknown key"),
        ("model.dropuot=0.2", r"model\.dropuot.*Did you mean 'dropout'\?"),
        ("model.name.x=3", "valid string"),
        ("augment.flip=.nan", "augment.flip = nan"),
        ("schedule.step_at.2=0.5", r"schedule\.step_at.*needs a list, such as"),
        ("training=5", "is a section"),
    ],
)
def test_wrong_overrides(override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, [override])
    (problem,) = caught.value.problems
    assert re.search(said, problem)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", ["not a mapping"]),
        ("model: [", ["can't be read as YAML"]),
        ("model: 3\n", ["is a section"]),
        ("model: {name: fast}\nmodel: {dropout: 0.2}\n", ["'model' is repeated"]),
        ("optimizer: {learning_rate: -1}\ntraining: {epochs: many, batch_sise: 3}\n", ["= -1", "'many'", "batch_size"]),
    ],
)
def test_wrong_files_are_told_with_all_problems(text: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "config.yaml")
    assert len(caught.value.problems) == len(said)
    assert all(words in problem for words, problem in zip(said, caught.value.problems, strict=True))


def test_a_shipped_configuration_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg16").mkdir()
    assert load_config("vgg16").model.name == "vgg16"
    with pytest.raises(UsageError, match=r"no such file. Did you mean 'fast'\? Name a YAML file, or one of cnn3, "):
        load_config("fsat")
    (tmp_path / "fast").write_text("model: {name: cnn3}")
    assert load_config("fast").model.name == "cnn3"


def test_every_architecture_has_a_search_space() -> None:
    assert list(SHIPPED) == [architecture.name for architecture in architectures()]
    assert all(load_config(name).model.name == name for name in SHIPPED)
    assert load_config("fast") == Config()  # the defaults are its recipe
