"""What a search was asked to do, checked whole before anything starts."""

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
"""What can look on at a search, and the package that it needs."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class SearchArguments:
    """A search as a user asks for it; ``fer_ray.tune.tune`` explains each argument."""

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
    """What each trial shall have.

    Attributes:
        workers: processes that train it together; above 1 through Ray Train.
        cpus: of all its processes together; None to choose.
        gpus: of all its processes together; None for one a process where a trial finds as many, else 0.
    """

    workers: int = 1
    cpus: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class SearchRequest:
    """A search, its arguments checked.

    Attributes:
        spaces: by name, which is the file's name without suffix.
        run: where the search goes.
        trials: finished trials that the study shall have in the end.
        time_budget: seconds after which nothing runs any more; None for no limit.
        storage: database URL of the study; None for the file in the run's folder.
        max_concurrent: trials at once; None to choose.
        needs: what each of them shall have.
        resume: whether it goes on with an earlier search.
        strategy: objectives, sampler and scheduler.
        confirm: whether the best configurations are trained again with new seeds afterwards.
        loggers: names in ``LOGGERS``.
    """

    dataset: PreparedDataset
    spaces: dict[str, SearchSpace]
    run: Output
    trials: int
    time_budget: float | None
    storage: str | None
    max_concurrent: int | None
    needs: TrialResources
    resume: bool
    strategy: Strategy
    confirm: bool
    loggers: tuple[str, ...]


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


def check_request(asked: SearchArguments) -> SearchRequest:
    """Check every argument and file of a search.

    Raises:
        UsageError: a wrong argument or space; the message lists all problems, those of the dataset too.
        DataError: only the dataset is wrong.
    """
    problems = _Problems()
    prepared, run, seconds, strategy = None, None, None, DEFAULT_STRATEGY
    with problems.collect():
        prepared = PreparedDataset(asked.dataset)
        prepared.check_trainable()
    info = prepared.info if prepared else None
    loaded = _load_spaces(asked.spaces, list(asked.overrides), info, max(1, asked.workers_per_trial), problems)
    with problems.collect():
        run = claim(asked.output, asked.resume, [asked.dataset])
    with problems.collect():
        seconds = None if asked.time_budget is None else parse_duration(asked.time_budget)
    with problems.collect():
        _check_storage(asked.storage)
    with problems.collect():
        strategy = choose_strategy(asked.objective, asked.sampler, asked.scheduler, loaded)
    needs = TrialResources(asked.workers_per_trial, asked.cpus_per_trial, asked.gpus_per_trial)
    for line in (*_count_problems(asked), *_needs_problems(needs), *_logger_problems(asked.loggers)):
        problems.add(line)
    problems.stop()
    assert prepared is not None and run is not None
    return SearchRequest(
        dataset=prepared,
        spaces=loaded,
        run=run,
        trials=asked.trials,
        time_budget=seconds,
        storage=asked.storage,
        max_concurrent=asked.max_concurrent,
        needs=needs,
        resume=asked.resume,
        strategy=strategy,
        confirm=asked.confirm,
        loggers=tuple(dict.fromkeys(asked.loggers)),
    )


def _count_problems(asked: SearchArguments) -> Iterator[str]:
    if asked.trials < 1:
        yield f"--trials {asked.trials}: at least 1."
    if asked.max_concurrent is not None and asked.max_concurrent < 1:
        yield f"--max-concurrent {asked.max_concurrent}: at least 1."


def _needs_problems(needs: TrialResources) -> Iterator[str]:
    workers, cpus, gpus = needs.workers, needs.cpus, needs.gpus
    if workers < 1:
        yield f"--workers-per-trial {workers}: at least 1."
        return
    if cpus is not None and (cpus < workers or cpus % workers):
        yield (
            f"--cpus-per-trial {cpus}: whole CPUs for each of {workers} worker(s), at least 1. Choose a multiple of"
            f" {workers}."
        )
    if gpus is not None and workers > 1 and gpus not in (0, workers):
        yield (
            f"--gpus-per-trial {gpus:g}: 0, or {workers}, one for each of {workers} workers (--workers-per-trial)."
            f" {WHY_ONE_GPU}"
        )
    if gpus is not None and workers == 1 and not 0 <= gpus <= 1:
        yield (
            f"--gpus-per-trial {gpus:g}: 0, a part of one GPU such as 0.25, or 1. A trial of one worker computes on one"
            " GPU and leaves others idle; --workers-per-trial trains on several."
        )


def _logger_problems(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name not in LOGGERS:
            yield f"--log {name}: choose tensorboard or mlflow.{did_you_mean(name, LOGGERS)}"
        elif find_spec(LOGGERS[name]) is None:
            yield f"--log {name}: needs the package {LOGGERS[name]}. Install it by `pip install {LOGGERS[name]}`."


def _load_spaces(
    files: Sequence[Path | str], overrides: list[str], info: DatasetInfo | None, workers: int, problems: _Problems
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
    """What of a configuration the checks look at; the rest need not be tried anew."""
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
        raise UsageError(f"--storage {storage}: its driver is missing ({error}). Install that package.") from error
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(f"--storage {storage}: is in memory, so that nothing could be resumed. Name a file. {remedy}")
    if url.get_backend_name() == "sqlite" and is_uploaded(file := Path(url.database or "").absolute()):
        raise UsageError(f"{file}: this database would be lost after the job.")
