"""Configurations in files: read from YAML, changed by ``--set a.b=value``, written back.

A search space is the same file plus a ``search:`` section that maps config paths to distributions.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_serializer, model_validator

from fer_ray.config import Config, Section
from fer_ray.errors import UsageError, did_you_mean
from fer_ray.files import local_path

M = TypeVar("M", bound=BaseModel)


class Distribution(Section):
    """How one config value is searched; in YAML ``{KIND: [low, high]}`` or ``{categorical: [values]}``."""

    kind: Literal["uniform", "log_uniform", "int", "categorical"]
    values: tuple[Any, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, raw: Any) -> Any:
        kinds = ("uniform", "log_uniform", "int", "categorical")
        if not (isinstance(raw, dict) and len(raw) == 1 and next(iter(raw)) in kinds):
            raise ValueError(f"must be one of {', '.join(kinds)} with a list, such as {{uniform: [0.0, 0.5]}}")
        kind, values = next(iter(raw.items()))
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{kind} needs a list of values")
        if kind != "categorical":
            values = _range(kind, values)
        return {"kind": kind, "values": tuple(values)}

    @model_serializer
    def _to_mapping(self) -> dict[str, list[Any]]:
        return {self.kind: list(self.values)}


def _range(kind: str, values: Sequence[Any]) -> list[float]:
    number: type = int if kind == "int" else float
    try:
        low, high = (number(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{kind} needs two numbers [low, high]") from None
    if not low < high:
        raise ValueError(f"{kind} needs low < high, not [{low}, {high}]")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform needs low > 0, not {low}")
    return [low, high]


class SearchSpace(Config):
    """A training configuration and what ``tune`` may change of it."""

    search: dict[str, Distribution] = Field(default={}, description="Config path, as model.dropout, to distribution.")

    @property
    def defaults(self) -> Config:
        """The configuration without its ``search:`` section."""
        return Config.model_validate(self.model_dump(exclude={"search"}))

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return the defaults with the values at the given config paths replaced.

        Raises:
            UsageError: a path that is no field, or a value outside its field's range.
        """
        raw = self.model_dump(exclude={"search"})
        for path, value in values.items():
            _assign(raw, path, value)
        return _validate(Config, raw, "configuration")


def load_config(path: Path | str | None, overrides: Iterable[str] = ()) -> Config:
    """Read a training configuration; a ``search:`` section in the file is checked and left out.

    Args:
        path: a YAML file, or None for the defaults.
        overrides: ``path.to.field=value`` strings, their values read as YAML.

    Raises:
        UsageError: the file is missing or not YAML, or holds unknown keys or values out of range; all at once.
    """
    return load_search_space(path, overrides).defaults


def load_search_space(path: Path | str | None, overrides: Iterable[str] = ()) -> SearchSpace:
    """Read a training configuration with its ``search:`` section; arguments and errors as in ``load_config``."""
    raw = {} if path is None else _read_yaml(local_path(path))
    problems = list[str]()
    for override in overrides:
        key, equals, value = override.partition("=")
        try:
            if not equals:
                raise ValueError("it must read path.to.field=value")
            _assign(raw, key.strip(), yaml.safe_load(value))
        except (ValueError, yaml.YAMLError) as error:
            problems.append(f"--set {override}: {error}")
    source = str(path) if path is not None else "configuration"
    try:
        space = _validate(SearchSpace, raw, source)
        problems += _search_problems(space, source)
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(problems)
    return space


def to_yaml(config: BaseModel) -> str:
    """Write a configuration or search space as YAML that ``load_config`` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {what}. Name a YAML configuration, such as search_spaces/fast.yaml.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: holds {type(raw).__name__}, not a mapping of sections such as `model:`.")
    return raw


def _assign(raw: dict[str, Any], path: str, value: Any) -> None:
    *sections, field = path.split(".")
    for section in sections:
        inner = raw.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ValueError(f"'{section}' in '{path}' is no section")
        raw = inner
    raw[field] = value


def _validate(model: type[M], raw: dict[str, Any], source: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UsageError([_explain(model, item, source) for item in error.errors()]) from error


def _explain(model: type[BaseModel], item: Any, source: str) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, item["loc"][:-1])
        key = str(item["loc"][-1])
        return f"{source}: unknown key '{path}'.{did_you_mean(key, fields)} Known here: {', '.join(sorted(fields))}."
    message = item["msg"].removeprefix("Value error, ")
    return f"{source}: {path} = {item['input']!r}: {message}."


def _fields_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _search_problems(space: SearchSpace, source: str) -> list[str]:
    problems = []
    known = [f"{section}.{field}" for section in Config.model_fields for field in _fields_at(Config, [section])]
    for path, distribution in space.search.items():
        if path not in known:
            problems.append(f"{source}: search.{path}: no such config path.{did_you_mean(path, known)}")
            continue
        for value in distribution.values:
            try:
                space.with_values({path: value})
            except UsageError as error:
                problems += [f"{source}: search.{path} reaches outside its field: {line}" for line in error.problems]
    return problems
