"""Search spaces: a training configuration with a ``search:`` section, the config paths that ``tune`` searches.

    search:
      model.dropout: {uniform: [0.0, 0.6]}
      optimizer.learning_rate: {log_uniform: [0.01, 0.5]}
      training.epochs: {int: [10, 40]}
      training.batch_size: {categorical: [64, 128, 256]}
      loss.class_multipliers.disgust: {log_uniform: [0.5, 2.0]}

Values that only go together, such as an optimizer and its learning rates, are searched by a file for each.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from fer_ray.config.paths import Problem, as_held, path_problem, problems_of, raw_with_values, value_at, with_values
from fer_ray.config.schema import Config, ConfigSection

_RANGES = ("uniform", "log_uniform", "int")
_KINDS = (*_RANGES, "categorical")
_DRAWS = 500
_NUMBERS: dict[str, TypeAdapter[Any]] = {
    kind: TypeAdapter(tuple[int, int] if kind == "int" else tuple[FiniteFloat, FiniteFloat]) for kind in _RANGES
}


class Distribution(ConfigSection):
    """How the value at a config path is searched: in YAML ``PATH: {KIND: [low, high]}``, or ``{categorical: […]}``."""

    path: str
    kind: Literal["uniform", "log_uniform", "int", "categorical"]
    values: tuple[Any, ...]  # low and high, or all values, with the type of the field

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, item: Any) -> Any:
        ((path, raw),) = item.items()
        if rule := path_problem(path):
            raise ValueError(rule)
        if path == "model.name":
            raise ValueError("architectures are searched by a --space file for each")
        if not isinstance(raw, dict) or len(raw) != 1 or next(iter(raw)) not in _KINDS:
            kinds = ", ".join(_KINDS)
            raise ValueError(f"must be one of {kinds} with its values, such as {{uniform: [0.0, 0.5]}}, not {raw!r}")
        kind, values = next(iter(raw.items()))
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{kind} needs a list of values")
        values = tuple(as_held(path, value) for value in values) if kind == "categorical" else _range(kind, values)
        if len(set(map(repr, values))) < len(values):
            raise ValueError(f"{kind} names a value twice")
        return {"path": path, "kind": kind, "values": values}

    @model_validator(mode="after")
    def _within_its_field(self) -> Self:
        for value in self.extremes():
            as_held(self.path, value)
        return self

    @model_serializer
    def _to_yaml(self) -> Any:
        return {self.kind: list(self.values)}

    def holds(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        if self.kind == "categorical":
            return value in self.values
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.values[0] <= value <= self.values[1]

    def extremes(self) -> tuple[Any, ...]:
        """Return values for checks: all of them, or the ends of a range and one in between."""
        if self.kind not in ("uniform", "log_uniform"):
            return self.values
        low, high = self.values
        return (low, high, low + 0.371 * (high - low))  # not a whole number, which a field of whole numbers refuses


class SearchSpace(Config):
    """A training configuration and the config paths that ``tune`` searches."""

    search: dict[str, Distribution] = Field(default={}, description="Config path, as model.dropout, to distribution.")

    @field_validator("search", mode="before")
    @classmethod
    def _search_from_yaml(cls, raw: Any) -> Any:
        if not isinstance(raw, dict | None):
            raise ValueError("needs a mapping of config paths, such as {model.dropout: {uniform: [0.0, 0.5]}}")
        return {str(path): {str(path): distribution} for path, distribution in (raw or {}).items()}

    @property
    def defaults(self) -> Config:
        """The configuration without its ``search:`` section."""
        return with_values(self, {})

    def without(self, paths: Collection[str]) -> "SearchSpace":
        """Return the space without the search of some config paths, which keep their defaults in every trial."""
        search = {path: by for path, by in self.search.items() if path not in paths}
        return self.model_copy(update={"search": search})

    def candidates(self) -> Iterator[dict[str, Any]]:
        """Yield some hundred candidates, mostly at the ends of ranges, for checks; always the same ones."""
        chance = random.Random(0)
        for _ in range(_DRAWS):
            yield {path: chance.choice(distribution.extremes()) for path, distribution in self.search.items()}

    def problems(self) -> list[Problem]:
        """Return what is wrong with the search; nothing if every candidate is a valid configuration."""
        outside = "the default, which is tried first, lies outside its search {} {}. Change one of them"
        found = [
            Problem(path, outside.format(by.kind, list(by.values)), value_at(self, path))
            for path, by in self.search.items()
            if not by.holds(value_at(self, path))
        ]
        return found or self._combination_problems()

    def _combination_problems(self) -> list[Problem]:
        """Try values together, to find those that exclude each other."""
        found = dict[str, Problem]()
        for values in self.candidates() if self.search else ():
            try:
                Config.model_validate(raw_with_values(self, values))
            except ValidationError as error:
                for one in problems_of(Config, error):
                    drawn = ", ".join(f"{path} = {at!r}" for path, at in values.items() if path.startswith(one.path))
                    rule = f"{drawn} may be drawn: {one.rule}. Search what excludes each other in two space files"
                    found.setdefault(one.path, Problem("search", rule))
        return list(found.values())


def _range(kind: str, values: Sequence[Any]) -> tuple[float, float]:
    try:
        low, high = _NUMBERS[kind].validate_python(values)
    except ValidationError:
        raise ValueError(f"{kind} needs two {'whole ' * (kind == 'int')}numbers [low, high]") from None
    if not low < high:
        raise ValueError(f"{kind} needs low < high, not [{low}, {high}]")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform needs low > 0, not {low}")
    return low, high
