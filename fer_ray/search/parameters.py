"""The values of search spaces as parameters of an Optuna study."""

import json
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from fer_ray.config.paths import value_at
from fer_ray.config.schema import Config
from fer_ray.config.search_space import Distribution, SearchSpace
from fer_ray.errors import UsageError

ARCHITECTURE = "architecture"
"""The parameter that chooses the space, in a study over several; the others are then called SPACE/CONFIG.PATH."""


def draw(trial: BaseTrial, spaces: Mapping[str, SearchSpace]) -> tuple[str, Config]:
    """Draw a candidate: the name of its space and its configuration."""
    key = next(iter(spaces))
    if len(spaces) > 1:
        key = trial.suggest_categorical(ARCHITECTURE, list(spaces))
    space, prefix = spaces[key], _prefix(key, spaces)
    return key, space.with_values({path: _suggest(trial, prefix + path, by) for path, by in space.search.items()})


def parameters_of(config: Config, key: str, spaces: Mapping[str, SearchSpace]) -> dict[str, Any] | None:
    """Return the parameters by which a space gives a configuration.

    Args:
        key: name of the space.

    Returns:
        Names and values as Optuna keeps them; None where the spaces can't give that configuration.
    """
    space = spaces.get(key)
    try:
        values = {path: value_at(config, path) for path in space.search} if space else {}
        if not space or space.with_values(values) != config:
            return None
    except (LookupError, AttributeError, UsageError):  # no such element, or not possible together
        return None
    if not all(by.holds(values[path]) for path, by in space.search.items()):
        return None
    architecture = {ARCHITECTURE: key} if len(spaces) > 1 else {}
    return architecture | {_prefix(key, spaces) + path: _stored(value) for path, value in values.items()}


def recall(parameters: Mapping[str, Any], spaces: Mapping[str, SearchSpace]) -> tuple[str, dict[str, Any], Config]:
    """Return what a trial drew: the name of its space, values by config path, and its configuration."""
    key = parameters.get(ARCHITECTURE, next(iter(spaces)))
    space, prefix = spaces[key], _prefix(key, spaces)
    drawn = {
        path: _restored(parameters[prefix + path], distribution)
        for path, distribution in space.search.items()
        if prefix + path in parameters  # a trial may be killed before all are drawn
    }
    return key, drawn, space.with_values(drawn)


def _suggest(trial: BaseTrial, name: str, distribution: Distribution) -> Any:
    values = distribution.values
    if distribution.kind == "categorical":
        return _restored(trial.suggest_categorical(name, [_stored(value) for value in values]), distribution)
    if distribution.kind == "int":
        return trial.suggest_int(name, values[0], values[1])
    return trial.suggest_float(name, values[0], values[1], log=distribution.kind == "log_uniform")


def _restored(stored: Any, distribution: Distribution) -> Any:
    """Return the value that Optuna has kept of a distribution."""
    if distribution.kind != "categorical":
        return stored
    return next(value for value in distribution.values if _stored(value) == stored)


def _stored(value: Any) -> Any:
    """A value as Optuna keeps it: lists as text, for its categories are text, numbers, truth values and null."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _prefix(key: str, spaces: Mapping[str, SearchSpace]) -> str:
    """What the names of a space's parameters begin with."""
    return f"{key}/" if len(spaces) > 1 else ""
