"""The searched values of spaces as parameters of an Optuna study."""

import json
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from fer_ray.config.paths import value_at, with_value, with_values
from fer_ray.config.schema import Config
from fer_ray.config.search_space import Distribution, SearchSpace
from fer_ray.errors import UsageError

ARCHITECTURE = "architecture"
"""The parameter that selects the space in a study over several spaces; the others are then named SPACE/CONFIG.PATH."""


def draw(trial: BaseTrial, spaces: Mapping[str, SearchSpace]) -> None:
    """Draw the parameters of a trial, from which ``recall`` makes its configuration."""
    key = trial.suggest_categorical(ARCHITECTURE, list(spaces)) if len(spaces) > 1 else next(iter(spaces))
    for path, distribution in spaces[key].search.items():
        name, values = parameter(path, key, spaces), distribution.values
        if distribution.kind == "categorical":
            trial.suggest_categorical(name, [_stored(value) for value in values])
        elif distribution.kind == "int":
            trial.suggest_int(name, *values)
        else:
            trial.suggest_float(name, *values, log=distribution.kind == "log_uniform")


def recall(parameters: Mapping[str, Any], spaces: Mapping[str, SearchSpace]) -> tuple[str, dict[str, Any], Config]:
    """Return what a trial drew: the name of its space, values by config path, and its configuration.

    A trial that was killed while it drew lacks some values.
    """
    key = parameters.get(ARCHITECTURE, next(iter(spaces)))
    names = {path: parameter(path, key, spaces) for path in spaces[key].search}
    values = {
        path: _restored(parameters[name], spaces[key].search[path])
        for path, name in names.items()
        if name in parameters
    }
    return key, values, with_values(spaces[key], values)


def parameters_of(config: Config, key: str, spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Return the parameters with which a space, by its name, draws a configuration."""
    chosen = {ARCHITECTURE: key} if len(spaces) > 1 else dict[str, Any]()
    return chosen | {parameter(path, key, spaces): _stored(value_at(config, path)) for path in spaces[key].search}


def parameter(path: str, key: str, spaces: Mapping[str, SearchSpace]) -> str:
    """Return the name of the parameter of a config path in the space of this name."""
    return f"{key}/{path}" if len(spaces) > 1 else path


def _restored(stored: Any, distribution: Distribution) -> Any:
    return next((value for value in distribution.values if _stored(value) == stored), stored)


def _stored(value: Any) -> Any:
    """Return a value as Optuna stores it: lists as text, because Optuna's categories can't be lists."""
    return json.dumps(value) if isinstance(value, tuple) else value


def ranges_changed(study: str, known: Mapping[str, SearchSpace], spaces: Mapping[str, SearchSpace]) -> bool:
    """Return whether bounds of ranges differ from those that a study knows; ``UsageError`` if anything else does."""
    changes = [f"space {key}" for key in sorted(set(known) ^ set(spaces))]
    for key in [key for key in known if key in spaces]:
        before, after = _fixed(known[key]), _fixed(spaces[key])
        paths = dict.fromkeys([*before, *after])
        changes += [f"{key}: {path}" for path in paths if before.get(path, ...) != after.get(path, ...)]
    if changes:
        raise UsageError(
            f"study {study}: its spaces differ from those of earlier calls in {', '.join(changes)}. --resume allows"
            " other bounds of ranges only. Restore the rest, or start a new search with another --output."
        )
    return any(known[key].search != spaces[key].search for key in known)


def _fixed(space: SearchSpace) -> dict[str, Any]:
    """Return what a study fixes of a space by config path: all but the bounds of ranges and their first values."""
    raw = space.model_dump(exclude={"search"})
    for path in space.search:
        raw = with_value(raw, path, None)
    fixed = {f"{section}.{field}": value for section, held in raw.items() for field, value in held.items()}
    kinds = {path: (by.kind, by.values if by.kind == "categorical" else None) for path, by in space.search.items()}
    return fixed | kinds
