"""Search spaces: a training configuration and, in its ``search:`` section, what ``tune`` may change of it.

    search:
      model.dropout: {uniform: [0.0, 0.6]}
      optimizer.learning_rate: {log_uniform: [0.01, 0.5]}
      training.epochs: {int: [10, 40]}
      training.batch_size: {categorical: [64, 128, 256]}
      loss.class_multipliers.disgust: {log_uniform: [0.5, 2.0]}

A ``choice`` is a categorical whose options bring what is searched, or set, along with them; they nest:

    search:
      optimizer.name:
        choice:
          sgd:
            optimizer.learning_rate: {log_uniform: [0.01, 0.5]}
          adamw:
            optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
            optimizer.weight_decay: 0.01
          adam:
"""

import json
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from fer_ray.config.paths import as_held, path_problem, validate, value_at, with_value
from fer_ray.config.schema import Config, ConfigSection

_RANGES = ("uniform", "log_uniform", "int")
_KINDS = (*_RANGES, "categorical", "choice")
_DRAWS = 500


class Distribution(ConfigSection):
    """How one config value is searched; in YAML ``{KIND: [low, high]}``, ``{categorical: [values]}`` or
    ``{choice: {option: {path: distribution or value}}}``.

    Attributes:
        kind: ``fixed`` is a plain value, which an option of a choice may set.
        values: low and high, or all values, as the field holds them.
        branches: of a choice, by ``option_label`` of the option: what it brings.
    """

    kind: Literal["uniform", "log_uniform", "int", "categorical", "choice", "fixed"]
    values: tuple[Any, ...]
    branches: dict[str, dict[str, "Distribution"]] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return {"kind": "fixed", "values": (raw,)}
        if len(raw) != 1 or next(iter(raw)) not in _KINDS:
            raise ValueError(f"must be one of {', '.join(_KINDS)} with its values, such as {{uniform: [0.0, 0.5]}}")
        kind, values = next(iter(raw.items()))
        if kind == "choice":
            return _choice(values)
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{kind} needs a list of values")
        return {"kind": kind, "values": tuple(values if kind == "categorical" else _range(kind, values))}

    @model_serializer
    def _to_yaml(self) -> Any:
        if self.kind == "fixed":
            return self.values[0]
        if self.kind == "choice":
            return {"choice": {value: self.branches[option_label(value)] for value in self.values}}
        return {self.kind: list(self.values)}

    def at(self, path: str) -> "Distribution":
        """Return it with values, those of its branches too, as the field at a path holds them."""
        if self.kind in _RANGES:
            return self
        values = tuple(as_held(path, value) for value in self.values)
        brought = [{inner: one.at(inner) for inner, one in branch.items()} for branch in self.branches.values()]
        branches = dict(zip(map(option_label, values), brought, strict=True)) if brought else {}
        return self.model_copy(update={"values": values, "branches": branches})

    def holds(self, value: Any) -> bool:
        """Whether it can draw a value."""
        if self.kind not in _RANGES:
            return value in self.values
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.values[0] <= value <= self.values[1]

    @property
    def middle(self) -> Any:
        """A value from the middle of a range, of the logarithm's where it is searched by that; else the first one."""
        if self.kind not in _RANGES:
            return self.values[0]
        low, high = self.values
        middle = math.sqrt(low * high) if self.kind == "log_uniform" else (low + high) / 2
        return int(middle) if self.kind == "int" else middle

    def branch(self, value: Any) -> tuple[str, dict[str, "Distribution"]]:
        """Return the label of a choice's option and what it brings."""
        label = option_label(next(option for option in self.values if option == value))
        return label, self.branches[label]

    def extremes(self) -> tuple[Any, ...]:
        """Values by which it is checked: all of them, or of a range its ends and one in between."""
        if self.kind not in ("uniform", "log_uniform"):
            return self.values
        low, high = self.values
        return (low, high, low + 0.371 * (high - low))  # no whole number, so that one for a field of those shows


Searched = Mapping[str, Distribution]
Suggest = Callable[[str, str, Distribution], Any]
"""Draws a value, given the name of the parameter, its config path and its distribution."""


class SearchSpace(Config):
    """A training configuration and what ``tune`` may change of it."""

    search: dict[str, Distribution] = Field(default={}, description="Config path, as model.dropout, to distribution.")

    @field_validator("search", mode="before")
    @classmethod
    def _search_from_yaml(cls, raw: Any) -> Any:
        if not isinstance(raw, dict | None):
            raise ValueError("needs a mapping of config paths, such as {model.dropout: {uniform: [0.0, 0.5]}}")
        return {str(path): distribution for path, distribution in (raw or {}).items()}

    @field_validator("search")
    @classmethod
    def _as_fields_hold_them(cls, search: dict[str, Distribution]) -> dict[str, Distribution]:
        return {path: distribution.at(path) for path, distribution in search.items()}

    @property
    def defaults(self) -> Config:
        """The configuration without its ``search:`` section."""
        return Config.model_validate(self.model_dump(exclude={"search"}))

    @property
    def paths(self) -> list[str]:
        """Config paths that are searched or set by some option, in the order of the file."""
        return list(dict.fromkeys(searched_paths(self.search)))

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return the defaults with the values at the given config paths replaced.

        Raises:
            UsageError: a path that is no field, or a value outside its field's range.
        """
        raw = self.model_dump(exclude={"search"})
        for path, value in values.items():
            raw = with_value(raw, path, value)
        return validate(Config, raw, "configuration")

    def fixed(self, paths: Collection[str]) -> tuple["SearchSpace", dict[str, Any]]:
        """Return the space without the search of some config paths, which keep their defaults in every trial.

        Of a choice that leaves the search, what the option in the defaults brings stays.

        Args:
            paths: config paths; a list is one with its elements.

        Returns:
            The space, and the defaults that changed as they lay outside what is searched now, by config path.
        """
        left = dict(_without(self.search, paths, self))
        search = {path: one for path, one in left.items() if one.kind != "fixed" or path in self.search}
        values = {path: one.values[0] for path, one in left.items() if path not in search}
        for path, one in search.items():
            brought = path not in self.search and path_problem(self, path) is None
            if brought and not one.holds(value_at(self, path)):
                values[path] = one.middle
        return SearchSpace(**self.with_values(values).model_dump(), search=search), values

    def draw(self, suggest: Suggest) -> dict[str, Any]:
        """Return a value for each config path, those that the chosen options bring included.

        Args:
            suggest: is called for what is drawn, an option before what it brings. The parameter's name is the config
                path, behind the options that brought it: ``sgd/optimizer.learning_rate``.
        """
        return dict(_draw(self.search, suggest, ""))

    def candidates(self, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Draw some hundreds, at the ends of ranges mostly, to find those that fail; always the same ones."""
        chance = random.Random(seed)
        for _ in range(_DRAWS):
            yield self.draw(lambda name, path, distribution: chance.choice(distribution.extremes()))


def option_label(value: Any) -> str:
    """Write an option as YAML does: ``sgd``, ``null``, ``true``, ``0.5``; 1.0 is ``1``."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _choice(options: Any) -> dict[str, Any]:
    if not isinstance(options, dict) or len(options) < 2:
        raise ValueError("choice needs two options or more, each with what it brings, such as {sgd: {}, adamw: {}}")
    branches = {}
    for option, brought in options.items():
        if not isinstance(brought, dict | None):
            raise ValueError(f"option {option_label(option)} brings {brought!r}, not a mapping of config paths")
        branches[option_label(option)] = brought or {}
    return {"kind": "choice", "values": tuple(options), "branches": branches}


def _range(kind: str, values: Sequence[Any]) -> list[float]:
    number: type = int if kind == "int" else float
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        low, high = (number(value) for value in values)
        whole = kind != "int" or [low, high] == [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{kind} needs two numbers [low, high]") from None
    if not whole:
        raise ValueError("int needs whole numbers")
    if not low < high:
        raise ValueError(f"{kind} needs low < high, not [{low}, {high}]")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform needs low > 0, not {low}")
    return [low, high]


def overlap(path: str, other: str) -> bool:
    """Whether two config paths are the same, or one is an element of the other."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _without(search: Searched, paths: Collection[str], defaults: Config) -> Iterator[tuple[str, Distribution]]:
    """Yield what is searched beside the given paths, and what the options of the choices among them bring."""
    for path, distribution in search.items():
        branches = {label: dict(_without(one, paths, defaults)) for label, one in distribution.branches.items()}
        if not any(overlap(path, fixed) for fixed in paths):
            yield path, distribution.model_copy(update={"branches": branches})
        elif branches and path_problem(defaults, path) is None:
            value = value_at(defaults, path)
            yield from branches[distribution.branch(value)[0]].items() if value in distribution.values else ()


def searched_paths(search: Searched) -> Iterator[str]:
    """Every config path that is searched or set, on whichever branch."""
    for path, distribution in search.items():
        yield path
        for brought in distribution.branches.values():
            yield from searched_paths(brought)


def drawn_paths(search: Searched) -> Iterator[tuple[str, str]]:
    """Every config path that is drawn, on whichever branch, and the kind of its distribution."""
    for path, distribution in search.items():
        if distribution.kind != "fixed":
            yield path, distribution.kind
        for brought in distribution.branches.values():
            yield from drawn_paths(brought)


def values_of(search: Searched, path: str) -> Iterator[Any]:
    """Every value, or end of a range, that a config path may be given, on whichever branch."""
    for each, distribution in search.items():
        if each == path:
            yield from distribution.values
        for brought in distribution.branches.values():
            yield from values_of(brought, path)


def _draw(search: Searched, suggest: Suggest, prefix: str) -> Iterator[tuple[str, Any]]:
    for path, distribution in search.items():
        if distribution.kind == "fixed":
            yield path, distribution.values[0]
            continue
        value = suggest(prefix + path, path, distribution)
        yield path, value
        if distribution.branches:
            label, brought = distribution.branch(value)
            yield from _draw(brought, suggest, f"{prefix}{label}/")
