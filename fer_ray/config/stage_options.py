"""Classes of options as Python functions and as command lines, and what several of them share."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, ValidationError
from pydantic import Field as Range
from typer import Option
from typer.models import ParameterInfo

from fer_ray.errors import Problems, UsageError, did_you_mean
from fer_ray.storage.local import local_path, require_dataset, split_url

P = ParamSpec("P")
Options = TypeVar("Options")
Result = TypeVar("Result")

WHY_ONE_GPU = (
    "A process computes on one GPU: NCCL refuses two processes on the same GPU, and further GPUs of a process would be"
    " idle."
)
LATER = ConfigDict(defer_build=True)  # classes build their checks at first use: help needs none

Count = Annotated[int, Range(ge=1)]
PathOrUrl = Path | str
Dataset = Annotated[PathOrUrl, Option(help="Prepared dataset, from `fer-ray prepare`.")]


class Stage(Generic[P, Options, Result]):
    """A stage as a Python function of the fields of its options; ``run`` takes options that are checked already."""

    def __init__(self, options: Callable[P, Options], run: Callable[[Options], Result]):
        self._options, self.run = options, run
        functools.update_wrapper(self, run)
        self.__signature__ = inspect.signature(options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result:
        """Run the stage; ``FerRayError`` if an argument breaks a rule, or the stage fails."""
        return self.run(checked(self._options, *args, **kwargs))


def stage(options: Callable[P, Options]) -> Callable[[Callable[[Options], Result]], Stage[P, Options, Result]]:
    """Return a decorator that makes a function of options a function of their fields."""
    return lambda run: Stage(options, run)


def checked(options: Callable[P, Options], *args: P.args, **kwargs: P.kwargs) -> Options:
    """Make the options of a stage; ``UsageError`` with all values out of range, or from the class's own check."""
    try:
        return options(*args, **kwargs)
    except ValidationError as error:
        hints, found = get_type_hints(options, include_extras=True), dict[tuple[int | str, ...], Any]()
        for item in error.errors():  # pydantic lists each type of a union, whose name is in the place
            name, *below = item["loc"]
            found.setdefault((name, *(part for part in below if isinstance(part, int))), item)
        raise UsageError([_explain(hints, item) for item in found.values()]) from error


def _explain(hints: dict[str, Any], item: Any) -> str:
    name, rule = str(item["loc"][0]), item["msg"].removeprefix("Input ").replace("should be", "must be")
    if item["type"] == "value_error":  # of a check of ours, which names option and value itself
        return str(item["ctx"]["error"])
    known = re.findall(r"'([^']*)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else []
    remedy = did_you_mean(str(item["input"]), known)
    rule = "name at least one" if item["type"] == "too_short" else rule
    rule = rule.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    info = _parameter(hints.get(name))
    option = info.default if info and isinstance(info.default, str) else f"--{name.replace('_', '-')}"
    return f"{option} {item['input']}: {rule}.{remedy} {info.help if info else ''}".rstrip()


def command_line(options: type[Any]) -> list[inspect.Parameter]:
    """Return the options of a stage as parameters of a function that typer reads."""
    hints, types, parameters = get_type_hints(options, include_extras=True), get_type_hints(options), []
    for field in fields(options):
        if info := _parameter(hints[field.name]):
            kind, annotation = inspect.Parameter.KEYWORD_ONLY, Annotated[_command_line_type(types[field.name]), info]
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            if field.default is MISSING and NoneType in get_args(types[field.name]):
                default = None
            default = list(default) if isinstance(default, tuple) else default
            parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=annotation))
    return parameters


def _parameter(hint: Any) -> ParameterInfo | None:
    """Return what typer knows of a field."""
    return next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, ParameterInfo)), None)


def _command_line_type(hint: Any) -> Any:
    """Return the type by which typer reads a field: a single one, perhaps with None, or a list of texts."""
    members = list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
    single = [member for member in members if member is not NoneType]
    if any(get_origin(member) is Sequence for member in single):
        return list[str]
    read = single[0] if len(single) == 1 else str
    return read | None if NoneType in members else read


def split_names(names: Any) -> Any:
    """Split names that are separated by commas."""
    parts = [names] if isinstance(names, str) else names
    return [name.strip() for part in parts for name in part.split(",") if name.strip()]


def dataset_problems(dataset: Path | str) -> Problems:
    problems = Problems()
    with problems.collect():
        if not split_url(dataset):
            require_dataset(local_path(dataset), local_path(dataset))
    return problems
