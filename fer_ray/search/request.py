"""The arguments of a search, all checked before anything starts."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from fer_ray.cluster.resources import WHY_ONE_GPU
from fer_ray.config.files import load_search_space
from fer_ray.config.schema import Config
from fer_ray.config.search_checks import default_problems
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.messages import is_uploaded
from fer_ray.dataset.store import DatasetInfo, PreparedDataset
from fer_ray.errors import DataError, FerRayError, UsageError, did_you_mean
from fer_ray.search.strategy import DEFAULT_STRATEGY, Strategy, choose_strategy
from fer_ray.search.trial_records import short
from fer_ray.storage.outputs import Output, claim
from fer_ray.training.requirements import batch_problems, requirement_problems

LOGGERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
"""Logger to the package that it needs."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class SearchArguments:
    """Arguments of a search; ``fer_ray.tune.tune`` explains each of them."""

    dataset: Path | str
    spaces: Sequence[Path | str]
    output: Path | str
    trials: int
    time_budget: str | None = None
    storage: str | None = None
    max_concurrent: int | None = None
    resume: bool = False
    overrides: Sequence[str] = ()
    objective: str = "accuracy"
    sampler: str = "tpe"
    scheduler: str | None = None
    workers_per_trial: int = 1
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    confirm: bool = False
    loggers: Sequence[str] = ()


@dataclass(frozen=True)
class TrialResources:
    """Requested resources of each trial.

    Attributes:
        workers: processes that train the trial together; more than 1 use Ray Train.
        cpus: CPUs of all its processes together; None to choose.
        gpus: GPUs of all its processes together; None for one per process if a trial finds that many, else 0.
    """

    workers: int = 1
    cpus: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class SearchRequest:
    """A search whose arguments were checked.

    Attributes:
        spaces: search space by name: the file's name without suffix.
        run: output of the search.
        trials: number of finished trials in the study at the end.
        time_budget: seconds until the search stops; None for no limit.
        storage: database URL of the study; None for the file in the folder of the search.
        max_concurrent: trials at once; None to choose.
        resources: requested resources of each trial.
        resume: whether an earlier search is resumed.
        strategy: objectives, sampler and scheduler.
        confirm: whether the best configurations are trained again with new seeds.
        loggers: names in ``LOGGERS``.
    """

    dataset: PreparedDataset
    spaces: dict[str, SearchSpace]
    run: Output
    trials: int
    time_budget: float | None
    storage: str | None
    max_concurrent: int | None
    resources: TrialResources
    resume: bool
    strategy: Strategy
    confirm: bool
    loggers: tuple[str, ...]


class _Problems:
    """Collects errors to raise them together."""

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


def check_request(arguments: SearchArguments) -> SearchRequest:
    """Check every argument and file of a search.

    Raises:
        UsageError: an invalid argument or space; the message lists all problems, including those of the dataset.
        DataError: only the dataset is invalid.
    """
    problems = _Problems()
    prepared, run, seconds, strategy = None, None, None, DEFAULT_STRATEGY
    with problems.collect():
        prepared = PreparedDataset(arguments.dataset)
        prepared.check_trainable()
    info = prepared.info if prepared else None
    loaded = _load_spaces(
        arguments.spaces, list(arguments.overrides), info, max(1, arguments.workers_per_trial), problems
    )
    with problems.collect():
        run = claim(arguments.output, arguments.resume, [arguments.dataset])
    with problems.collect():
        seconds = None if arguments.time_budget is None else parse_duration(arguments.time_budget)
    with problems.collect():
        _check_storage(arguments.storage)
    with problems.collect():
        strategy = choose_strategy(arguments.objective, arguments.sampler, arguments.scheduler, loaded)
    resources = TrialResources(arguments.workers_per_trial, arguments.cpus_per_trial, arguments.gpus_per_trial)
    for line in (*_count_problems(arguments), *_resource_problems(resources), *_logger_problems(arguments.loggers)):
        problems.add(line)
    problems.stop()
    assert prepared is not None and run is not None
    return SearchRequest(
        dataset=prepared,
        spaces=loaded,
        run=run,
        trials=arguments.trials,
        time_budget=seconds,
        storage=arguments.storage,
        max_concurrent=arguments.max_concurrent,
        resources=resources,
        resume=arguments.resume,
        strategy=strategy,
        confirm=arguments.confirm,
        loggers=tuple(dict.fromkeys(arguments.loggers)),
    )


def _count_problems(arguments: SearchArguments) -> Iterator[str]:
    if arguments.trials < 1:
        yield f"--trials {arguments.trials}: must be at least 1."
    if arguments.max_concurrent is not None and arguments.max_concurrent < 1:
        yield f"--max-concurrent {arguments.max_concurrent}: must be at least 1."


def _resource_problems(resources: TrialResources) -> Iterator[str]:
    workers, cpus, gpus = resources.workers, resources.cpus, resources.gpus
    if workers < 1:
        yield f"--workers-per-trial {workers}: must be at least 1."
        return
    if cpus is not None and (cpus < workers or cpus % workers):
        yield (
            f"--cpus-per-trial {cpus}: each of {workers} worker(s) must get a whole number of CPUs, at least 1. Choose"
            f" a multiple of {workers}."
        )
    if gpus is not None and workers > 1 and gpus not in (0, workers):
        yield (
            f"--gpus-per-trial {gpus:g}: must be 0, or {workers}: one for each of {workers} workers"
            f" (--workers-per-trial). {WHY_ONE_GPU}"
        )
    if gpus is not None and workers == 1 and not 0 <= gpus <= 1:
        yield (
            f"--gpus-per-trial {gpus:g}: must be 0, a fraction of one GPU such as 0.25, or 1. A trial with one worker"
            " computes on one GPU and leaves others idle. Use --workers-per-trial to train on several."
        )


def _logger_problems(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name not in LOGGERS:
            yield f"--log {name}: choose tensorboard or mlflow.{did_you_mean(name, LOGGERS)}"
        elif find_spec(LOGGERS[name]) is None:
            yield f"--log {name}: needs the package {LOGGERS[name]}. Install it with `pip install {LOGGERS[name]}`."


def _load_spaces(
    files: Sequence[Path | str], overrides: list[str], info: DatasetInfo | None, workers: int, problems: _Problems
) -> dict[str, SearchSpace]:
    spaces: dict[str, SearchSpace] = {}
    if not files:
        problems.add("no search space. Name one or more with --space, such as search_spaces/fast.yaml.")
    for file in files:
        name = Path(file).stem
        if name in spaces:
            problems.add(f"--space {file}: a second space named '{name}'. Rename one of the files.")
        with problems.collect():
            spaces[name] = load_search_space(file, overrides)
            for line in _space_problems(spaces[name], info, workers):
                problems.add(f"{file}: {line}")
    return spaces


def _space_problems(space: SearchSpace, info: DatasetInfo | None, workers: int) -> Iterator[str]:
    rows = sum(info.splits["train"].labels.values()) if info and "train" in info.splits else None

    def problems_of(config: Config) -> list[str]:
        return [*requirement_problems(config, info), *batch_problems(config, rows, workers)]

    if not space.search:
        yield "nothing to search. Add a `search:` section, such as model.dropout: {uniform: [0.0, 0.6]}."
    yield from default_problems(space)
    wrong = problems_of(space.defaults)
    yield from wrong
    tried, found = {_demanding(space.defaults)}, dict[str, str]()
    for values in [] if wrong else space.candidates():
        config = space.with_values(values)
        if _demanding(config) not in tried:
            tried.add(_demanding(config))
            for line in problems_of(config):
                drawn = ", ".join(f"{path} = {short(value)}" for path, value in values.items() if path in line)
                found.setdefault(line.partition(" = ")[0], f"search: may draw {drawn or 'that'}: {line}")
    yield from found.values()


def _demanding(config: Config) -> tuple[Any, ...]:
    """Return the part of a configuration that the checks depend on. Two equal parts are checked once."""
    training, loss = config.training, config.loss
    model = config.model.model_copy(update={"dropout": 0.0})
    parts = (training.accumulate, training.batch_size, loss.soft_labels, loss.teachers)
    return (model, config.schedule.first_size, *parts)


def parse_duration(text: str) -> float:
    """Return a duration such as ``90s``, ``30m`` or ``1.5h`` in seconds.

    Raises:
        UsageError: another format, or 0.
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
        raise UsageError(f"--storage {storage}: its driver is missing ({error}). Install that package.") from error
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(f"--storage {storage}: is in memory, so nothing could be resumed. Name a file. {remedy}")
    if url.get_backend_name() == "sqlite" and is_uploaded(file := Path(url.database or "").absolute()):
        raise UsageError(f"{file}: this database would be lost after the job.")
