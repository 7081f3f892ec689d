"""The options of the stage tune."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Range
from pydantic.dataclasses import dataclass
from typer import Option

from fer_ray.config.files import load_search_spaces
from fer_ray.config.search_space import SearchSpace
from fer_ray.config.stage_options import LATER, WHY_ONE_GPU, Count, Dataset, PathOrUrl, dataset_problems, split_names
from fer_ray.errors import UsageError

Objective = Literal["accuracy", "macro_f1", "images_per_s"]
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}  # that each logger needs
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, config=LATER)
class TuneOptions:
    """Search hyperparameters and architectures.

    ``best/`` holds the best trial by the first objective; ``trials.parquet`` marks the Pareto front.
    """

    dataset: Dataset
    spaces: Annotated[
        Sequence[SearchSpace | PathOrUrl],
        Range(min_length=1),
        Option("--space", help="YAML file or shipped name; repeatable."),
    ]
    output: Annotated[PathOrUrl, Option(help="Folder of the search; new, or an earlier one with --resume.")]
    trials: Annotated[Count, Option(help="Number of finished trials in the study at the end.")]
    _: KW_ONLY
    time_budget: Annotated[
        str | None, Option(help="Stop after this time, such as 90s, 30m or 2h; running trials stop too.")
    ] = None
    storage: Annotated[
        str | None, Option(envvar="FER_RAY_STORAGE", help="Database URL of the study; default OUTPUT/study.db.")
    ] = None
    max_concurrent: Annotated[Count | None, Option(help="Trials at once; default: one per GPU or core.")] = None
    resume: Annotated[bool, Option("--resume", help="Resume a search, or add trials to it.")] = False
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan and train nothing.")] = False
    overrides: Annotated[Sequence[str], Option("--set", metavar="PATH=VALUE", help="Change every space.")] = ()
    objective: Annotated[
        Annotated[Sequence[Objective], BeforeValidator(split_names), Range(min_length=1)],
        Option(help="accuracy, macro_f1, or several separated by commas, such as accuracy,images_per_s."),
    ] = ("accuracy",)
    sampler: Annotated[Literal["tpe", "gp", "cmaes", "random", "qmc"], Option(help="Optuna's sampler.")] = "tpe"
    scheduler: Annotated[
        Literal["asha", "hyperband", "median", "none"] | None,
        Option(help="What stops weak trials; default asha, or none with several objectives."),
    ] = None
    workers_per_trial: Annotated[
        Count, Option(help="Processes that train one trial together; 2 or more take about 20 s longer to start.")
    ] = 1
    cpus_per_trial: Annotated[
        int | None, Option(help="CPUs of all workers of a trial; default: an equal part of the cluster.")
    ] = None
    gpus_per_trial: Annotated[
        float | None,
        Option(help="GPUs of all workers of a trial, such as 0.25; default: one each if there are enough."),
    ] = None
    confirm: Annotated[
        bool, Option("--confirm", help="Then train the best three with three new seeds each, beyond the time budget.")
    ] = False
    loggers: Annotated[
        Annotated[Sequence[Literal["tensorboard", "mlflow"]], BeforeValidator(split_names)],
        Option("--log", help="tensorboard, mlflow, or both separated by a comma: log trials while they run."),
    ] = ()

    @functools.cached_property
    def seconds(self) -> float | None:
        """The time budget in seconds."""
        return None if self.time_budget is None else parse_duration(self.time_budget)

    @functools.cached_property
    def search_spaces(self) -> dict[str, SearchSpace]:
        """The search spaces by name."""
        return load_search_spaces(self.spaces, self.overrides)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = dataset_problems(self.dataset)
        with problems.collect():
            _ = self.search_spaces
        with problems.collect():
            _ = self.seconds
        problems.add(*self._resource_problems(), *self._logger_problems())
        problems.stop()
        return self

    def _resource_problems(self) -> Iterator[str]:
        workers, cpus, gpus = self.workers_per_trial, self.cpus_per_trial, self.gpus_per_trial
        if cpus is not None and (cpus < workers or cpus % workers):
            yield f"--cpus-per-trial {cpus}: each of {workers} worker(s) needs whole CPUs: a multiple of {workers}."
        if gpus is not None and not (0 <= gpus <= 1 if workers == 1 else gpus in (0, workers)):
            some = "a fraction of one GPU such as 0.25, or 1"
            some = some if workers == 1 else f"or {workers}, one for each of {workers} workers"
            yield f"--gpus-per-trial {gpus:g}: must be 0, {some} (see --workers-per-trial). {WHY_ONE_GPU}"

    def _logger_problems(self) -> Iterator[str]:
        for name in self.loggers:
            if find_spec(package := _PACKAGES[name]) is None:
                yield f"--log {name}: needs the package {package}. Install it with `pip install {package}`."


def parse_duration(text: str) -> float:
    """Return a duration such as ``90s``, ``30m`` or ``1.5h`` in seconds; ``UsageError`` for another format, or 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(f"--time-budget {text}: write a number above 0 with s, m or h, such as 90s, 30m or 2h.")
    return float(match[1]) * _UNITS[match[2]]
