"""Config paths such as ``model.dropout`` and ``schedule.step_at.0``, and values that break a rule."""

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
    """Return every field of a configuration by its path, without elements of lists."""
    return dict(_leaves(Config))


def path_problem(path: str) -> str | None:
    """Return why no configuration has a value at a path; None if some have one."""
    parent, _, last = path.rpartition(".")
    if path in config_paths() or (parent in config_paths() and last.isdigit()):
        return None
    if inside := [field for field in config_paths() if field.startswith(f"{path}.")]:
        return f"it is a section. Search one of its fields: {', '.join(inside)}"
    return f"no such config path.{did_you_mean(path, config_paths())}".removesuffix(".")


def element_problem(config: Config, path: str) -> str | None:
    """Return why a configuration doesn't have the element of a list that a path names; None if it has it."""
    parent, _, last = path.rpartition(".")
    if path in config_paths():
        return None
    elements = value_at(config, parent)
    if not isinstance(elements, tuple):
        return f"{parent} = {elements!r} is not a list. Write the whole list in its section, then search elements"
    return None if int(last) < len(elements) else f"{parent} has {len(elements)} elements, counted from 0"


def value_at(config: Config, path: str) -> Any:
    """Return the value at a path that the configuration has."""
    value: Any = config
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value


def as_held(path: str, value: Any) -> Any:
    """Return a value with the type of the field at a path, lists as tuples.

    Raises:
        ValueError: the field doesn't hold it.
    """
    parent, _, last = path.rpartition(".")
    is_element = path not in config_paths() and last.isdigit()
    field = config_paths()[parent if is_element else path]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]  # as documented
    try:
        held = adapter.validate_python([value] if is_element else value)
    except ValidationError as error:
        raise ValueError(f"reaches outside its field: {path} = {value!r}: {error.errors()[0]['msg']}") from error
    return held[0] if is_element else held


def with_value(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return nested mappings with the value at a path replaced; missing sections and lists are made.

    Raises:
        ValueError: the path leads through a value that is neither a section nor a list with that element.
    """
    parent, _, last = path.rpartition(".")
    section, _, field = parent.partition(".")
    if last.isdigit() and parent in config_paths() and field not in raw.get(section, {}):
        raw = _replaced(raw, [section, field], value_at(Config(), parent), parent)
    replaced: dict[str, Any] = _replaced(raw, path.split("."), value, path)
    return replaced


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a configuration, without what a search adds, with the values at the given config paths replaced.

    Raises:
        UsageError: an unknown path, or a value outside its field's range.
    """
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


def _replaced(inner: Any, parts: Sequence[str], value: Any, path: str) -> Any:
    if not parts:
        return value
    first, *rest = parts
    if isinstance(inner, list | tuple):
        if not (first.isdigit() and int(first) < len(inner)):
            raise ValueError(f"'{first}' in '{path}' is not one of the {len(inner)} elements, counted from 0")
        number = int(first)
        return [*inner[:number], _replaced(inner[number], rest, value, path), *inner[number + 1 :]]
    if not isinstance(inner, dict):
        raise ValueError(f"'{first}' in '{path}' is not in a section")
    return inner | {first: _replaced(inner.get(first, {}), rest, value, path)}


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
