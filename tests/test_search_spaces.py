"""Search spaces: what may be written, what is drawn, and that whatever is drawn is a configuration."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_ray.config_files import load_search_space, to_yaml
from fer_ray.errors import UsageError
from fer_ray.search_checks import default_problems, search_problems
from fer_ray.search_spaces import Distribution, SearchSpace

SPACES = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.yaml"), key=lambda file: file.stem)
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
      muon:
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
    muon = draw(space, name="muon")
    assert "null/loss.class_weight_power" in muon["names"]
    assert "optimizer.learning_rate" not in muon


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
