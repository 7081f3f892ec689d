"""What a search was asked to do, checked whole before anything starts, and how it shares out a cluster."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from fer_ray.config import Config
from fer_ray.config_files import load_search_space
from fer_ray.config_paths import value_at
from fer_ray.data.store import DatasetInfo, PreparedDataset
from fer_ray.errors import DataError, FerRayError, UsageError, did_you_mean
from fer_ray.files import claim_output, local_path
from fer_ray.learning.confirmation import CONFIGURATIONS, SEEDS
from fer_ray.learning.requirements import requirement_problems
from fer_ray.learning.strategy import DEFAULT_STRATEGY, Strategy, choose_strategy
from fer_ray.learning.study import short
from fer_ray.progress import duration
from fer_ray.search_checks import default_problems
from fer_ray.search_spaces import Searched, SearchSpace

LOGGERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
"""What can look on at a search, and the package that it needs."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class SearchRequest:
    """A search, its arguments checked.

    Attributes:
        spaces: by name, which is the file's name without suffix.
        run: folder of the search.
        trials: finished trials that the study shall have in the end.
        time_budget: seconds after which nothing runs any more; None for no limit.
        storage: database URL of the study; None for the file in the run's folder.
        max_concurrent: trials at once; None to choose.
        resume: whether it goes on with an earlier search.
        strategy: objectives, sampler and scheduler.
        confirm: whether the best configurations are trained again with new seeds afterwards.
        loggers: names in ``LOGGERS``.
    """

    dataset: PreparedDataset
    spaces: dict[str, SearchSpace]
    run: Path
    trials: int
    time_budget: float | None
    storage: str | None
    max_concurrent: int | None
    resume: bool
    strategy: Strategy
    confirm: bool
    loggers: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """How the cluster is shared out.

    Attributes:
        concurrent: trials at once.
        resources: of one trial, as Ray names them.
        reason: why so many at once.
    """

    concurrent: int
    resources: dict[str, float]
    reason: str

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return int(self.resources["CPU"])


class _Problems:
    """Collects errors, to raise them together."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.kind: type[FerRayError] = DataError

    @contextmanager
    def collect(self) -> Iterator[None]:
        try:
            yield
        except FerRayError as error:
            self.lines += error.problems
            self.kind = UsageError if isinstance(error, UsageError) else self.kind

    def add(self, line: str) -> None:
        with self.collect():
            raise UsageError(line)

    def stop(self) -> None:
        if self.lines:
            raise self.kind(self.lines)


def check_request(
    dataset: Path | str,
    spaces: Sequence[Path | str],
    output: Path | str,
    trials: int,
    time_budget: str | None,
    storage: str | None,
    max_concurrent: int | None,
    resume: bool,
    overrides: Iterable[str],
    *,
    objective: str = "accuracy",
    sampler: str = "tpe",
    scheduler: str | None = None,
    confirm: bool = False,
    loggers: Sequence[str] = (),
) -> SearchRequest:
    """Check every argument and file of a search, which ``tune`` explains.

    Raises:
        UsageError: a wrong argument or space; the message lists all problems, those of the dataset too.
        DataError: only the dataset is wrong.
    """
    problems = _Problems()
    prepared, run, seconds, strategy = None, Path(output), None, DEFAULT_STRATEGY
    with problems.collect():
        prepared = PreparedDataset(local_path(dataset))
        prepared.check_trainable()
    loaded = _load_spaces(spaces, list(overrides), prepared.info if prepared else None, problems)
    with problems.collect():
        run = claim_output(output, resume)
    with problems.collect():
        seconds = None if time_budget is None else parse_duration(time_budget)
    with problems.collect():
        _check_storage(storage)
    with problems.collect():
        strategy = choose_strategy(objective, sampler, scheduler, loaded)
    if trials < 1:
        problems.add(f"--trials {trials}: at least 1.")
    if max_concurrent is not None and max_concurrent < 1:
        problems.add(f"--max-concurrent {max_concurrent}: at least 1.")
    for line in _logger_problems(loggers):
        problems.add(line)
    problems.stop()
    assert prepared is not None
    once = tuple(dict.fromkeys(loggers))
    return SearchRequest(
        prepared, loaded, run, trials, seconds, storage, max_concurrent, resume, strategy, confirm, once
    )


def _logger_problems(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name not in LOGGERS:
            yield f"--log {name}: choose tensorboard or mlflow.{did_you_mean(name, LOGGERS)}"
        elif find_spec(LOGGERS[name]) is None:
            yield f"--log {name}: needs the package {LOGGERS[name]}. Install it by `pip install {LOGGERS[name]}`."


def _load_spaces(
    files: Sequence[Path | str], overrides: list[str], info: DatasetInfo | None, problems: _Problems
) -> dict[str, SearchSpace]:
    spaces: dict[str, SearchSpace] = {}
    if not files:
        problems.add("no search space given. Name one or more by --space, such as search_spaces/fast.yaml.")
    for file in files:
        name = Path(file).stem
        if name in spaces:
            problems.add(f"--space {file}: a second space named '{name}'. Give each file its own name.")
        with problems.collect():
            spaces[name] = load_search_space(file, overrides)
            for line in _space_problems(spaces[name], info):
                problems.add(f"{file}: {line}")
    return spaces


def _space_problems(space: SearchSpace, info: DatasetInfo | None) -> Iterator[str]:
    if not space.search:
        yield "nothing to search. Add a `search:` section, such as model.dropout: {uniform: [0.0, 0.6]}."
    yield from default_problems(space)
    wrong = requirement_problems(space.defaults, info)
    yield from wrong
    tried, found = {_demanding(space.defaults)}, dict[str, str]()
    for values in [] if wrong else space.candidates():
        config = space.with_values(values)
        if _demanding(config) not in tried:
            tried.add(_demanding(config))
            for line in requirement_problems(config, info):
                drawn = ", ".join(f"{path} = {short(value)}" for path, value in values.items() if path in line)
                found.setdefault(line.partition(" = ")[0], f"search: may draw {drawn or 'that'}: {line}")
    yield from found.values()


def _demanding(config: Config) -> tuple[Any, ...]:
    """What of a configuration ``requirement_problems`` looks at; the rest need not be tried anew."""
    training, loss = config.training, config.loss
    model = config.model.model_copy(update={"dropout": 0.0})
    parts = (training.accumulate, training.batch_size, loss.soft_labels, loss.teachers)
    return (model, config.schedule.first_size, *parts)


def parse_duration(text: str) -> float:
    """Return the seconds that ``90s``, ``30m`` or ``1.5h`` say.

    Raises:
        UsageError: it reads otherwise, or is 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(f"--time-budget {text}: write a number above 0 with s, m or h, such as 90s, 30m or 2h.")
    return float(match[1]) * _UNITS[match[2]]


def _check_storage(storage: str | None) -> None:
    if storage is None:
        return
    remedy = "Give a database URL, such as sqlite:////shared/study.db or postgresql://user@host/name."
    try:
        url = make_url(storage)
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"--storage {storage}: {error}. {remedy}") from error
    except ImportError as error:
        shown = url.render_as_string(hide_password=True)
        raise UsageError(f"--storage {shown}: its driver is missing ({error}). Install that package.") from error


def share_out(nodes: Sequence[Mapping[str, float]], trials: int, max_concurrent: int | None) -> Share:
    """Share a cluster among trials that run at once.

    Args:
        nodes: resource name to amount, for each node.
        trials: that are left to run.
        max_concurrent: trials at once; None for a trial a GPU, or without GPUs a trial a CPU core. Small
            convolutions gain little from a second thread, so that many one-thread trials finish earlier.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    if max_concurrent is not None:
        concurrent, reason = max_concurrent, "as asked"
    elif gpus:
        concurrent, reason = max(1, int(gpus)), "one a GPU"
    else:
        concurrent, reason = max(1, sum(cpus)), "one a CPU core"
    if trials < concurrent:
        concurrent, reason = max(1, trials), "no more are left to run"
    fitting = [each for each in range(1, max(cpus, default=0) + 1) if sum(n // each for n in cpus) >= concurrent]
    resources: dict[str, float] = {"CPU": max(fitting, default=1)}
    if gpus:
        resources["GPU"] = 1 if concurrent <= gpus else 1 / math.ceil(concurrent / gpus)
    return Share(concurrent, resources, reason)


def describe_plan(request: SearchRequest, share: Share) -> str:
    """Return what a search would do, for ``--dry-run``."""
    each = ", ".join(f"{amount:g} {name}" for name, amount in share.resources.items())
    budget = "" if request.time_budget is None else f", for at most {duration(request.time_budget)}"
    objectives, strategy = " and ".join(request.strategy.objectives), request.strategy
    lines = [
        f"{request.trials} trials{budget}, {share.concurrent} at once ({share.reason}), each with {each}",
        f"dataset: {request.dataset.path}; objective: best validation {objectives} over a trial's epochs",
        f"sampler: {strategy.sampler}; scheduler: {strategy.scheduler}",
        *strategy.notes(),
    ]
    for name, space in request.spaces.items():
        lines.append(f"space {name}: {space.model.name}, {space.training.epochs} epochs")
        lines += _describe_search(space, space.search, "  ", first=True)
    if request.confirm:
        lines.append(f"then the best {CONFIGURATIONS} configurations again, with {SEEDS} new seeds each: confirm/")
    lines.append(f"output: {request.run}: study.db, trials.parquet, best.yaml, best/")
    return "\n".join(lines)


def _describe_search(space: SearchSpace, search: Searched, indent: str, first: bool) -> Iterator[str]:
    """A line a path, those of an option below it; the first value is named where the defaults take this branch."""
    for path, distribution in search.items():
        values = ", ".join(short(value) for value in distribution.values)
        if distribution.kind == "fixed":
            yield f"{indent}{path}: {values}"
            continue
        yield f"{indent}{path}: {distribution.kind} [{values}]" + f", first {short(value_at(space, path))}" * first
        for value in distribution.values if distribution.branches else ():
            _, brought = distribution.branch(value)
            if brought:
                yield f"{indent}  {short(value)}:"
                yield from _describe_search(space, brought, f"{indent}    ", first and value == value_at(space, path))
