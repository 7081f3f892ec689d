"""Read configurations and search spaces from YAML, change them by ``--set a.b=value``, write them back."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from fer_ray.config.paths import validate, value_at, with_value
from fer_ray.config.schema import Config
from fer_ray.config.search_checks import search_problems
from fer_ray.config.search_space import Distribution, SearchSpace, overlap, searched_paths
from fer_ray.console.progress import say
from fer_ray.errors import UsageError
from fer_ray.storage.inputs import local_copy


def load_config(path: Path | str | None, overrides: Iterable[str] = ()) -> Config:
    """Read a training configuration, without the ``search:`` section of its file.

    Args:
        path: a YAML file, or None for the defaults.
        overrides: ``path.to.field=value`` strings; values are read as YAML.

    Raises:
        UsageError: the file is missing or not YAML, or has unknown keys or values out of range; all problems together.
    """
    raw, _, problems = _read(path, overrides)
    try:
        config = validate(Config, {name: section for name, section in raw.items() if name != "search"}, _source(path))
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(problems)
    return config


def load_search_space(path: Path | str | None, overrides: Iterable[str] = ()) -> SearchSpace:
    """Read a training configuration with its ``search:`` section; arguments and errors as in ``load_config``.

    A path that an override sets is not searched, which a message says.
    """
    raw, changed, problems = _read(path, overrides)
    fixed, source, values = list(_leaves(changed)), _source(path), dict[str, Any]()
    try:
        space = validate(SearchSpace, raw, source)
        previous = set(searched_paths(space.search))
        space, values = space.fixed(fixed)
    except UsageError as error:
        problems += error.problems
        space, previous = _readable_part(raw), set()
    problems += search_problems(space, source)
    if problems:
        raise UsageError(problems)
    for one in fixed:
        if any(overlap(one, searched) for searched in previous):
            say(f"{source}: {one} = {value_at(space, one)!r} in every trial, as --set says; it is not searched.")
    for one, value in values.items():
        when = "the first trial, from where it is searched" if one in space.search else "every trial"
        say(f"{source}: {one} = {value!r} in {when}: the option that --set names brings it.")
    return space


def _read(path: Path | str | None, overrides: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the sections of a file after the overrides, the overrides as nested mappings, and their problems."""
    raw: dict[str, Any] = {} if path is None else _read_yaml(local_copy(path))
    changed, problems = dict[str, Any](), list[str]()
    for override in overrides:
        key, equals, text = override.partition("=")
        try:
            if not equals:
                raise ValueError("it must read path.to.field=value")
            value = yaml.safe_load(text)
            raw = with_value(raw, key.strip(), value)
            changed[key.strip()] = value
        except (ValueError, yaml.YAMLError) as error:
            problems.append(f"--set {override}: {error}")
    return raw, changed, problems


def _leaves(changed: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the config path of each value in nested mappings."""
    for key, value in changed.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _source(path: Path | str | None) -> str:
    return str(path) if path is not None else "configuration"


def to_yaml(config: BaseModel) -> str:
    """Write a configuration or search space as YAML that ``load_config`` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def space_from_yaml(text: str, source: str) -> SearchSpace:
    """Read a search space that ``to_yaml`` has written.

    Raises:
        UsageError: this version of fer_ray has other fields; ``source`` begins each message.
    """
    return validate(SearchSpace, yaml.safe_load(text), source)


def _readable_part(raw: dict[str, Any]) -> SearchSpace:
    """The defaults with what is sound in ``search:`` alone, to check its paths although the rest can't be read.

    Nothing is searched in it where the defaults themselves are wrong: the checks would blame their ranges.
    """
    sections = {name: section for name, section in raw.items() if name != "search"}
    search = raw.get("search")
    sound = dict[Any, Any]()
    for path, distribution in search.items() if isinstance(search, dict) else ():
        part = _readable_options(distribution)
        with suppress(ValidationError):
            SearchSpace.model_validate(sections | {"search": {path: part}})
            sound[path] = part
    return SearchSpace.model_validate(sections | {"search": sound}) if sound else SearchSpace()


def _readable_options(distribution: Any) -> Any:
    """A choice without what its options bring that can't be read; anything else as it is."""
    options = distribution.get("choice") if isinstance(distribution, dict) else None
    if not isinstance(options, dict):
        return distribution
    sound = dict[Any, Any]()
    for option, brought in options.items():
        sound[option] = {}
        for path, inner in brought.items() if isinstance(brought, dict) else ():
            part = _readable_options(inner)
            with suppress(ValidationError):
                Distribution.model_validate(part)
                sound[option][path] = part
    return distribution | {"choice": sound}


class _UniqueKeys(yaml.SafeLoader):
    """Reads YAML and refuses a repeated key in a mapping, of which PyYAML itself keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the base class."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise ConstructorError(None, None, f"'{key}' is repeated", node.value[number][0].start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {what}. Name a YAML configuration, such as search_spaces/fast.yaml.")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: holds {type(raw).__name__}, not a mapping of sections such as `model:`.")
    return raw
