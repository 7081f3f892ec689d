"""Search spaces: what may be written, what is drawn, and that whatever is drawn is a configuration."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from fer_ray.config.files import load_config, load_search_space, space_from_yaml, to_yaml
from fer_ray.config.paths import value_at
from fer_ray.config.search_checks import default_problems, search_problems
from fer_ray.config.search_space import Distribution, SearchSpace
from fer_ray.errors import UsageError
from fer_ray.search.parameters import draw as draw_trial
from fer_ray.search.parameters import parameters_of, recall

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"), key=lambda file: file.stem)
CONDITIONAL = """
optimizer: {name: sgd, learning_rate: 0.1}
search:
  model.dropout: {uniform: [0.0, 0.6]}
  optimizer.name:
    choice:
      sgd:
        optimizer.learning_rate: {log_uniform: [1e-2, 0.5]}
        optimizer.momentum: {uniform: [0.8, 0.99]}
      adamw:
        optimizer.learning_rate: {log_uniform: [1e-4, 1e-2]}
        optimizer.weight_decay: 0.01
      adam:
  loss.effective_number:
    choice:
      null: {loss.class_weight_power: {uniform: [0.0, 1.0]}}
      0.999:
  loss.class_multipliers.disgust: {log_uniform: [0.5, 2.0]}
  schedule.step_at.0: {uniform: [0.2, 0.6]}
  schedule.step_at.1: {categorical: [0.7, 0.75]}
"""


def space_of(text: str) -> SearchSpace:
    return SearchSpace.model_validate(yaml.safe_load(text))


def draw(space: SearchSpace, **chosen: Any) -> dict[str, Any]:
    """Draw the named options, and the first value of everything else; what is asked for is under ``names``."""
    names = []

    def suggest(name: str, path: str, distribution: Distribution) -> Any:
        names.append(name)
        return chosen.get(path.rpartition(".")[2], distribution.values[0])

    return {**space.draw(suggest), "names": names}


def test_options_bring_their_own_values() -> None:
    space = space_of(CONDITIONAL)
    assert not search_problems(space, "s") and not list(default_problems(space))
    adamw = draw(space, name="adamw", effective_number=0.999)
    names = adamw.pop("names")
    assert "adamw/optimizer.learning_rate" in names and not any(name.startswith("sgd/") for name in names)
    config = space.with_values(adamw)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.weight_decay) == (
        "adamw",
        1e-4,
        0.01,
    )
    assert (config.loss.effective_number, config.loss.class_weight_power) == (0.999, 0)
    assert config.loss.class_multipliers.disgust == 0.5
    assert config.schedule.step_at == (0.2, 0.7)
    adam = draw(space, name="adam")
    assert "null/loss.class_weight_power" in adam["names"]
    assert "optimizer.learning_rate" not in adam


def test_options_nest_and_set_what_only_goes_together() -> None:
    text = """
    loss: {class_weight_power: 0.5}
    search:
      optimizer.name:
        choice:
          sgd:
            schedule.name:
              choice: {cosine: {schedule.warmup: {uniform: [0.0, 0.2]}}, one_cycle: }
          adam:
      loss.effective_number: {choice: {null: , 0.99: {loss.class_weight_power: 0.0}}}
    """
    space = space_of(text)
    assert search_problems(space, "s") == []
    names = draw(space)["names"]
    assert names == ["optimizer.name", "sgd/schedule.name", "sgd/cosine/schedule.warmup", "loss.effective_number"]
    assert len({str(sorted(map(str, values.items()))) for values in space.candidates()}) == 10


def test_numbers_as_options_are_found_however_they_are_written() -> None:
    space = space_of("search: {augment.mixup: {choice: {0: , 0.8: {loss.label_smoothing: {uniform: [0.0, 0.2]}}}}}")
    assert search_problems(space, "s") == [] and list(default_problems(space)) == []
    assert space.draw(lambda name, path, distribution: 0.0) == {"augment.mixup": 0.0}
    assert "0.8/loss.label_smoothing" in draw(space, mixup=0.8)["names"]


def test_written_and_read_back(tmp_path: Path) -> None:
    space = space_of(CONDITIONAL)
    (tmp_path / "s.yaml").write_text(to_yaml(space))
    assert load_search_space(tmp_path / "s.yaml") == space


@pytest.mark.parametrize("file", SPACES, ids=lambda file: str(file.stem))
def test_shipped_spaces_search_what_matters(file: Path) -> None:
    space = load_search_space(file)
    assert {"optimizer.learning_rate", "model.dropout", "loss.class_weight_power", "augment.shift"} <= set(space.paths)
    assert list(default_problems(space)) == []


@pytest.mark.parametrize(
    "distribution",
    [
        "{uniform: [1, 0]}",
        "{log_uniform: [0, 1]}",
        "{int: [1]}",
        "{int: [0.5, 2]}",
        "{gauss: [0, 1]}",
        "3",
        "{uniform: [0, 1], int: [0, 1]}",
        "{uniform: [0, .inf]}",
        "{uniform: [.nan, 1]}",
        "{categorical: []}",
        "{categorical: [0.1, 0.1]}",
        "{choice: [0.1, 0.2]}",
        "{choice: {0.1: {}}}",
        "{choice: {0.1: [], 0.2: }}",
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
        ("optimizer.clip_norm", "[null, 1, 2.5]", (None, 1.0, 2.5)),
        ("optimizer.learning_rate", "[1e-1, 1, '1e-3']", (0.1, 1.0, 0.001)),
        ("augment.mixup", "[0, 1]", (0.0, 1.0)),
        ("augment.rotation", "[10, true]", (10.0, 1.0)),
        ("training.batch_size", "[128.0, '64']", (128, 64)),
        ("training.patience", "[null, 2.0]", (None, 2)),
        ("loss.soft_labels", "[0, yes, ]", (False, True)),
        ("schedule.step_at.1", "['0.75', 0.8]", (0.75, 0.8)),
        ("loss.class_multipliers.disgust", "[1, 2]", (1.0, 2.0)),
    ],
)
@pytest.mark.parametrize("kind", ["categorical", "choice"])
def test_values_take_the_type_of_their_field(kind: str, path: str, written: str, held: Any, tmp_path: Path) -> None:
    """From the file to the trials' configurations, through the study, and back from what is written of both."""
    values = yaml.safe_load(written)
    if kind == "choice":
        if any(isinstance(value, list) for value in values):
            pytest.skip("no key of a mapping")
        values = dict.fromkeys(values)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"search": {path: {kind: values}}}, sort_keys=False))
    space = load_search_space(tmp_path / "s.yaml")
    assert repr(space.search[path].values) == repr(held)
    assert space_from_yaml(to_yaml(space), "study") == space and not list(default_problems(space))
    spaces, study, seen = {"s": space}, optuna.create_study(), set[str]()
    first = parameters_of(space.defaults, "s", spaces)
    assert first is not None
    study.enqueue_trial(first)
    for number in range(30):
        trial = study.ask()
        _, config = draw_trial(trial, spaces)
        study.tell(trial, 0.5)
        assert number or config == space.defaults
        _, drawn, recalled = recall(study.trials[-1].params, spaces)
        assert recalled == config and repr(drawn[path]) == repr(value_at(config, path))
        assert parameters_of(config, "s", spaces) == trial.params
        (tmp_path / "best.yaml").write_text(to_yaml(config))
        assert load_config(tmp_path / "best.yaml") == config
        seen.add(repr(drawn[path]))
    assert seen == set(map(repr, held))


@pytest.mark.parametrize(
    ("override", "searched", "held"),
    [
        ("model.dropout=0.3", "model.dropout", {"model.dropout": 0.3}),
        ("model.dropout=0.9", "model.dropout", {"model.dropout": 0.9}),  # outside of what was searched
        ("loss.class_multipliers.disgust=3", "loss.class_multipliers.disgust", {"loss.class_multipliers.disgust": 3.0}),
        ("schedule.step_at.0=0.3", "schedule.step_at.0", {"schedule.step_at": (0.3, 0.75)}),
        (
            "schedule.step_at=[0.2, 0.4]",
            "schedule.step_at.0, schedule.step_at.1",
            {"schedule.step_at.1": 0.4},
        ),
        ("model={dropout: 0.2}", "model.dropout", {"model.dropout": 0.2}),
        ("optimizer.learning_rate=0.05", "optimizer.learning_rate", {"optimizer.learning_rate": 0.05}),
        ("optimizer.weight_decay=0.1", "optimizer.weight_decay", {"optimizer.weight_decay": 0.1}),  # set by an option
        (
            "optimizer.name=adamw",
            "optimizer.name, optimizer.momentum, optimizer.weight_decay",
            {"optimizer.name": "adamw", "optimizer.weight_decay": 0.01, "optimizer.learning_rate": 0.001},
        ),
        (
            "optimizer.name=adam",  # none of the options
            "optimizer.name, optimizer.momentum, optimizer.weight_decay, optimizer.learning_rate",
            {"optimizer.name": "adam", "optimizer.learning_rate": 0.1},
        ),
        ("training.epochs=3", "", {"training.epochs": 3}),
    ],
)
def test_what_is_set_is_not_searched(
    override: str, searched: str, held: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(CONDITIONAL)
    before, space = load_search_space(tmp_path / "s.yaml"), load_search_space(tmp_path / "s.yaml", [override])
    gone = set(searched.split(", ")) - {""}
    assert set(before.paths) - set(space.paths) == gone
    assert {path: value_at(space, path) for path in held} == held
    assert not list(default_problems(space)) and not search_problems(space, "s")
    said = capfd.readouterr().err
    path = override.partition("=")[0]
    assert ("in every trial, as --set says; it is not searched" in said) == bool(gone) == (path in said)
    fixed = {path: value for path, value in held.items() if path not in space.paths}
    for values in space.candidates():
        assert not set(values) & set(fixed)
        config = space.with_values(values)
        assert all(value_at(config, path) == value for path, value in fixed.items() if path != "schedule.step_at")


def test_training_leaves_the_search_out(tmp_path: Path) -> None:
    """Ranges that would refuse a search refuse no training, whatever is wrong with them."""
    ranges = ["{int: [0, 90]}", "{categorical: [7, 7]}", "{gauss: [0, 1]}", "3"]
    for one in ranges:
        (tmp_path / "s.yaml").write_text(f"training: {{epochs: 7}}\nsearch: {{training.epochs: {one}}}")
        assert load_config(tmp_path / "s.yaml", ["training.batch_size=32"]).training.epochs == 7
        with pytest.raises(UsageError):
            load_search_space(tmp_path / "s.yaml")
