"""Config paths: ``model.dropout``, ``loss.class_multipliers.disgust``, ``schedule.step_at.0``."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fer_ray.config.schema import Config
from fer_ray.errors import UsageError, did_you_mean

M = TypeVar("M", bound=BaseModel)


def config_paths() -> list[str]:
    """Return the path of every field of a configuration, without elements of lists."""
    return [path for path, _ in _leaves(Config)]


def value_at(config: Config, path: str) -> Any:
    """Return the value at a path for which ``path_problem`` returns None."""
    value: Any = config
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value


def as_held(path: str, value: Any) -> Any:
    """Return a value as the field at a path holds it: of its type, lists as tuples; as it is where that can't be."""
    fields = dict(_leaves(Config))
    parent, _, last = path.rpartition(".")
    is_element = path not in fields and last.isdigit()
    field = fields.get(parent if is_element else path)
    if field is None:
        return value
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]  # as documented
    try:
        held = adapter.validate_python([value] if is_element else value)
    except ValidationError:  # out of range or of another kind, which the checks tell with the value as it was written
        return value
    return held[0] if is_element else held


def with_value(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return nested mappings with the value at a path replaced; sections that are missing are made.

    A list of which an element is replaced, and that isn't there, is the field's default.

    Raises:
        ValueError: the path leads through something that is no section and no list of so many elements.
    """
    parent, _, last = path.rpartition(".")
    section, _, field = parent.partition(".")
    if last.isdigit() and parent in config_paths() and field not in raw.get(section, {}):
        raw = _replaced(raw, [section, field], value_at(Config(), parent), parent)
    replaced: dict[str, Any] = _replaced(raw, path.split("."), value, path)
    return replaced


def path_problem(config: Config, path: str) -> str | None:
    """Say why a path can't be searched in a configuration; None where it can."""
    known = config_paths()
    parent, _, last = path.rpartition(".")
    if path in known:
        return None
    if parent in known and last.isdigit():
        held = value_at(config, parent)
        if not isinstance(held, tuple):
            return f"{parent} = {held!r} is no list. Write the whole list in its section, then search its elements."
        return None if int(last) < len(held) else f"{parent} has {len(held)} elements, counted from 0."
    inside = [field for field in known if field.startswith(f"{path}.")]
    if inside:
        return f"it is a section. Search one of its fields: {', '.join(inside)}."
    return f"no such config path.{did_you_mean(path, known)}"


def validate(model: type[M], raw: dict[str, Any], source: str) -> M:
    """Make a model from nested mappings.

    Raises:
        UsageError: unknown keys or values out of range, all at once; ``source`` begins each message.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UsageError([_explain(model, item, source) for item in error.errors()]) from error


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
            raise ValueError(f"'{first}' in '{path}' is none of the {len(inner)} elements, counted from 0")
        place = int(first)
        return [*inner[:place], _replaced(inner[place], rest, value, path), *inner[place + 1 :]]
    if not isinstance(inner, dict):
        raise ValueError(f"'{first}' in '{path}' lies in no section")
    return inner | {first: _replaced(inner.get(first, {}), rest, value, path)}


def _explain(model: type[BaseModel], item: Any, source: str) -> str:
    # A choice holds its options as `branches`; in the file they stand under the word `choice`.
    path = ".".join(str(part) for part in item["loc"]).replace(".branches.", ".choice.")
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, item["loc"][:-1])
        key = str(item["loc"][-1])
        return f"{source}: unknown key '{path}'.{did_you_mean(key, fields)} Known here: {', '.join(sorted(fields))}."
    # Pydantic speaks of Python's types in these.
    if item["type"] == "tuple_type":
        message = "needs a list, such as [0.5, 0.75]"
    elif item["type"] == "model_type":
        message = f"is a section. Set one of its fields: {', '.join(_fields_at(model, item['loc']))}"
    else:
        message = item["msg"].removeprefix("Value error, ")
    return f"{source}: {path} = {item['input']!r}: {message}."


def _fields_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
