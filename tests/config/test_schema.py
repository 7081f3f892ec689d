"""The configuration: reading, overriding, and the problems that a wrong one has."""

import re
from pathlib import Path

import pytest

from fer_ray.config.files import SHIPPED, load_config, to_yaml
from fer_ray.config.schema import Config
from fer_ray.errors import UsageError
from fer_ray.models import architectures


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
