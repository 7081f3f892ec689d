"""The configuration: reading, overriding, and the messages that a wrong one gives."""

import re
from pathlib import Path

import pytest

from fer_ray.config.files import SHIPPED, load_config, load_search_space, to_yaml
from fer_ray.config.schema import Config
from fer_ray.errors import UsageError
from fer_ray.models import architectures


def problems_of(call: str, *, text: str | None = None, tmp_path: Path, overrides: list[str] | None = None) -> list[str]:
    file = None
    if text is not None:
        file = tmp_path / "config.yaml"
        file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(file, overrides or [])
    assert caught.value.exit_code == 2, call
    return caught.value.problems


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = load_config(None, ["model.name=cnn3", "optimizer.learning_rate=1e-3", "training.patience=4"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config
    assert config.optimizer.learning_rate == 0.001


def test_unknown_key_names_the_near_one(tmp_path: Path) -> None:
    (problem,) = problems_of("unknown", tmp_path=tmp_path, overrides=["model.dropuot=0.2"])
    assert "model.dropuot" in problem and "Did you mean 'dropout'?" in problem


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = "optimizer: {learning_rate: -1}\ntraining: {epochs: many, batch_sise: 3}\n"
    problems = problems_of("several", text=text, tmp_path=tmp_path)
    assert len(problems) == 3
    assert any("optimizer.learning_rate = -1" in problem for problem in problems)
    assert any("batch_sise" in problem and "batch_size" in problem for problem in problems)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs", "must read path.to.field=value"),
        ("model.name.x=3", "valid string"),
        ("training.precision=half", "training.precision = 'half'"),
        ("augment.flip=.nan", "augment.flip = nan"),
        ("training.epochs=0", "greater than or equal to 1"),
        ("schedule.step_at.2=0.5", "not one of the 2 elements, counted from 0"),
        ("training=5", "is a section"),
    ],
)
def test_bad_override(override: str, said: str, tmp_path: Path) -> None:
    (problem,) = problems_of(override, tmp_path=tmp_path, overrides=[override])
    assert re.search(said, problem)


@pytest.mark.parametrize("text", ["- 1\n", "model: [", "model: 3\n"])
def test_bad_file(text: str, tmp_path: Path) -> None:
    problems_of(text, text=text, tmp_path=tmp_path)


@pytest.mark.parametrize("named", ["none.yaml", "fsat"])
def test_missing_file(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no such file.* Name a YAML file, or one of cnn3, ") as caught:
        load_config(named)
    assert ("Did you mean 'fast'?" in str(caught.value)) == (named == "fsat")


def test_a_shipped_configuration_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg16").mkdir()
    assert load_config("vgg16").model.name == "vgg16"
    (tmp_path / "fast").write_text("model: {name: cnn3}")
    assert load_config("fast").model.name == "cnn3"


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    (problem,) = problems_of("twice", text="model: {name: fast}\nmodel: {dropout: 0.2}\n", tmp_path=tmp_path)
    assert "'model' is repeated" in problem


def test_elements_and_nested_sections_by_path(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("schedule: {step_at: [0.3, 0.6]}\n")
    overrides = ["schedule.step_at.1=0.8", "loss.class_multipliers.disgust=2"]
    config = load_config(tmp_path / "config.yaml", overrides)
    assert config.schedule.step_at == (0.3, 0.8)
    assert (config.loss.class_multipliers.disgust, config.loss.class_multipliers.angry) == (2, 1)
    (problem,) = problems_of("far", text="schedule: {step_at: [0.5]}", tmp_path=tmp_path, overrides=[overrides[0]])
    assert "schedule.step_at.1" in problem and "1 elements" in problem


def test_a_single_teacher_needs_no_list() -> None:
    assert load_config(None, ["loss.teachers=runs/a/checkpoint"]).loss.teachers == ("runs/a/checkpoint",)


def test_with_values_changes_only_what_is_named() -> None:
    space = load_search_space(None)
    changed = space.with_values({"model.dropout": 0.5})
    assert changed == Config.model_validate(space.defaults.model_dump() | {"model": {"name": "fast", "dropout": 0.5}})


def test_every_architecture_has_a_search_space() -> None:
    assert list(SHIPPED) == [architecture.name for architecture in architectures()]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_search_spaces(name: str) -> None:
    space = load_search_space(name)
    assert space.model.name == name and not space.problems()
    assert {"optimizer.learning_rate", "model.dropout", "loss.class_weight_power", "augment.shift"} <= set(space.search)


def test_the_defaults_are_the_recipe_of_fast() -> None:
    assert load_config("fast") == Config()
