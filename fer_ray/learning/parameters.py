"""The values of a search space as parameters of an Optuna study."""

import json
from typing import Any

import optuna

from fer_ray.config_paths import value_at
from fer_ray.search_spaces import Distribution, SearchSpace


def default_parameters(space: SearchSpace, prefix: str) -> dict[str, Any]:
    """Return the defaults of a space as Optuna keeps them, those alone that their own options bring."""
    parameters = dict[str, Any]()

    def default(name: str, path: str, distribution: Distribution) -> Any:
        value = value_at(space, path)
        parameters[prefix + name] = _stored(value)
        return value

    space.draw(default)
    return parameters


def suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    """Draw a value."""
    values = distribution.values
    if distribution.kind in ("categorical", "choice"):
        return restored(trial.suggest_categorical(name, [_stored(value) for value in values]), distribution)
    if distribution.kind == "int":
        return trial.suggest_int(name, values[0], values[1])
    return trial.suggest_float(name, values[0], values[1], log=distribution.kind == "log_uniform")


def restored(stored: Any, distribution: Distribution) -> Any:
    """Return the value that Optuna has kept of a distribution."""
    if distribution.kind not in ("categorical", "choice"):
        return stored
    return next(value for value in distribution.values if _stored(value) == stored)


def _stored(value: Any) -> Any:
    """A value as Optuna keeps it: lists as text, for its categories are text, numbers, truth values and null."""
    return json.dumps(value) if isinstance(value, tuple) else value
