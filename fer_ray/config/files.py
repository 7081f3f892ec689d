"""Read configurations and search spaces from YAML, change them by ``--set a.b=value``, write them back."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from yaml.constructor import ConstructorError

from fer_ray.config.paths import validate, value_at, with_value
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.errors import Problems, UsageError, did_you_mean
from fer_ray.storage.local import local_path, split_url

SHIPPED = {file.stem: file for file in sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))}
"""The configurations with search spaces that come with the package, by name: one an architecture."""
_EXAMPLE = "model.dropout: {uniform: [0.0, 0.6]}"


def load_config(source: Path | str | None, overrides: Iterable[str] = ()) -> Config:
    """Read a training configuration, without the ``search:`` section of its file.

    ``source`` is the name of a shipped configuration, a YAML file by path or URL, or None for the defaults.
    ``overrides`` are ``path.to.field=value`` strings, whose values are read as YAML. ``UsageError`` if the file is
    missing or not YAML, or has unknown keys or values out of range; all problems together.
    """
    raw, changed, problems = _read(source, overrides)
    if not any(path.startswith("search") for path in changed):
        raw.pop("search", None)
    with problems.collect():
        config = validate(Config, raw, _label(source))
    problems.stop()
    return config


def load_search_space(source: Path | str | None, overrides: Iterable[str] = ()) -> SearchSpace:
    """Read a training configuration with its ``search:`` section; arguments and errors as in ``load_config``.

    A path that an override sets is not searched, which a message says.
    """
    raw, changed, problems = _read(source, overrides)
    fixed, label = list(_leaves(changed)), _label(source)
    with problems.collect():
        whole = validate(SearchSpace, raw, label)
        space = whole.without(fixed)
        problems.add(*(f"{label}: {problem}" for problem in space.problems()))
    problems.stop()
    from fer_ray.console.progress import say  # here, as rich takes a while to import

    for path in fixed:
        if path in whole.search:
            say(f"{label}: {path} = {value_at(space, path)!r} in every trial, as --set says; it is not searched.")
    return space


def load_search_spaces(
    sources: Sequence[SearchSpace | Path | str], overrides: Iterable[str] = ()
) -> dict[str, SearchSpace]:
    """Read several search spaces, by name: of the file without suffix, or of the architecture of a ``SearchSpace``.

    ``UsageError`` with the problems of all: as in ``load_search_space``, nothing to search, or a name that is taken.
    """
    found, problems = dict[str, SearchSpace](), Problems()
    for source in sources:
        name = source.model.name if isinstance(source, SearchSpace) else Path(source).stem
        if name in found:
            problems.add(f"--space {source}: a second space named '{name}'. Rename one of the files.")
        with problems.collect():
            found[name] = source if isinstance(source, SearchSpace) else load_search_space(source, overrides)
            if not found[name].search:
                problems.add(f"{source}: nothing to search. Add a `search:` section, such as {_EXAMPLE}.")
    problems.stop()
    return found


def to_yaml(config: BaseModel) -> str:
    """Write a configuration or search space as YAML that ``load_config`` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def space_from_yaml(text: str, source: str) -> SearchSpace:
    """Read a search space that ``to_yaml`` has written; ``UsageError`` if this version of fer_ray has other fields."""
    return validate(SearchSpace, yaml.safe_load(text), source)


def _read(source: Path | str | None, overrides: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any], Problems]:
    """Return the sections of a file after the overrides, the overrides by path, and their problems."""
    raw: dict[str, Any] = {} if source is None else _read_yaml(source)
    changed, problems = dict[str, Any](), Problems()
    for override in overrides:
        key, equals, text = override.partition("=")
        try:
            if not equals:
                raise ValueError("it must read path.to.field=value")
            value = yaml.safe_load(text)
            raw = with_value(raw, key.strip(), value)
            changed[key.strip()] = value
        except (ValueError, yaml.YAMLError) as error:
            problems.add(f"--set {override}: {error}")
    return raw, changed, problems


def _label(source: Path | str | None) -> str:
    return str(source) if source is not None else "configuration"


def _leaves(changed: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in changed.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _find(source: Path | str) -> Path:
    """Return the local file of a configuration; ``UsageError`` if there is none."""
    if split_url(source):
        from fer_ray.storage.inputs import local_copy  # here, as pyarrow takes a while to import

        path = local_copy(source)
    elif str(source) in SHIPPED and not Path(source).is_file():
        return SHIPPED[str(source)]
    else:
        path = local_path(source)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        near = did_you_mean(str(source), SHIPPED)
        raise UsageError(f"{source}: {what}.{near} Name a YAML file, or one of {', '.join(SHIPPED)}.")
    return path


class _UniqueKeys(yaml.SafeLoader):
    """Reads YAML and refuses a repeated key in a mapping, of which PyYAML itself keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the base class."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise ConstructorError(None, None, f"'{key}' is repeated", node.value[number][0].start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(source: Path | str) -> dict[str, Any]:
    try:
        raw = yaml.load(_find(source).read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: can't be read as YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"{source}: holds {type(raw).__name__}, not a mapping of sections such as `model:`.")
    return raw
