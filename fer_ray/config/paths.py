"""Config paths such as ``model.dropout``, and values that break a rule."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fer_ray.config.schema import Config
from fer_ray.errors import UsageError, did_you_mean

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """A value that breaks a rule."""

    path: str  # or a section, for a rule on several of its values
    rule: str  # and the remedy
    value: Any = ...  # at the path; ``...`` if the message doesn't show it

    def __str__(self) -> str:
        value = "" if self.value is ... else f" = {self.value!r}"
        return f"{self.path}{value}: {self.rule}.".removeprefix(": ")


def validate(model: type[M], raw: dict[str, Any], source: str) -> M:
    """Make a model from nested mappings; ``UsageError`` with all problems, each of which begins with ``source``."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UsageError([f"{source}: {problem}" for problem in problems_of(model, error)]) from error


def problems_of(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return the problems that pydantic has found in nested mappings."""
    return [_problem(model, item) for item in error.errors()]


@functools.cache
def config_paths() -> dict[str, FieldInfo]:
    """Return every field of a configuration by its path."""
    return dict(_leaves(Config))


def path_problem(path: str) -> str | None:
    """Return why no configuration has a value at a path; None if some have one."""
    if path in config_paths():
        return None
    if inside := [field for field in config_paths() if field.startswith(f"{path}.")]:
        return f"it is a section. Search one of its fields: {', '.join(inside)}"
    return f"no such config path.{did_you_mean(path, config_paths())}".removesuffix(".")


def value_at(config: Config, path: str) -> Any:
    """Return the value at a path that the configuration has."""
    return functools.reduce(getattr, path.split("."), config)


def as_held(path: str, value: Any) -> Any:
    """Return a value with the type of the field at a path, lists as tuples; ``ValueError`` if it can't hold it."""
    field = config_paths()[path]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]  # as documented
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"reaches outside its field: {path} = {value!r}: {error.errors()[0]['msg']}") from error


def with_value(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return nested mappings with the value at a path replaced; ``ValueError`` if it leads through a value.

    Missing sections are made.
    """
    first, _, rest = path.partition(".")
    if rest:
        inner = raw.get(first, {})
        if not isinstance(inner, dict):
            raise ValueError(f"'{first}' is not a section")
        value = with_value(inner, rest, value)
    return raw | {first: value}


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a configuration, its search left out, with values at paths replaced; ``UsageError`` for wrong ones."""
    return validate(Config, raw_with_values(config, values), "configuration")


def raw_with_values(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``with_values`` validates."""
    raw = config.model_dump(exclude={"search"})
    for path, value in values.items():
        raw = with_value(raw, path, value)
    return raw


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _problem(model: type[BaseModel], item: Any) -> Problem:
    location, value = item["loc"], item["input"]
    path = ".".join(map(str, location))
    rule = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        rule = f"unknown key.{did_you_mean(str(location[-1]), known)} Known here: {', '.join(sorted(known))}"
    elif item["type"] == "tuple_type":  # pydantic's own text names Python's types in these
        rule = "needs a list, such as [0.5, 0.75]"
    elif item["type"] == "model_type":
        rule = f"is a section. Set one of its fields: {', '.join(_fields_at(model, location))}"
    return Problem(path, rule, ... if isinstance(value, dict) else value)


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
