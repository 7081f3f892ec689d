"""Measure checkpoints on a split of a prepared dataset, with and without the images that are also in train."""

import operator
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cluster.memory import memory_errors
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.calibration import reliability_bins
from fer_ray.inference.checkpoint import Checkpoint
from fer_ray.inference.device import pick_device, resolve_precision
from fer_ray.inference.network import LESS_MEMORY
from fer_ray.inference.predictor import Predictions, Predictor, load_members
from fer_ray.inference.scores import (
    Evaluation,
    Scores,
    TtaScores,
    compare,
    compare_members,
    measure_members,
    score_predictions,
)
from fer_ray.inference.tta_names import TTA_NAMES, tta_problem
from fer_ray.reporting.evaluation_folder import write_evaluation
from fer_ray.reporting.evaluation_text import describe
from fer_ray.storage.inputs import local_copies
from fer_ray.storage.outputs import claimed
from fer_ray.storage.provenance import Start, this_start
from fer_ray.version import VERSION


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation.

    Attributes:
        path: path or URL of the output folder.
        evaluation: the contents of its ``metrics.json``.
    """

    path: Path | str
    evaluation: Evaluation

    @property
    def scores(self) -> Scores:
        """Scores on the official split under the main TTA."""
        return self.evaluation.main.official


def evaluate(
    checkpoints: Path | str | Sequence[Path | str],
    dataset: Path | str,
    output: Path | str,
    *,
    split: str | None = None,
    tta: Sequence[str] = ("none", "flip"),
    precision: str = "auto",
) -> EvaluationResult:
    """Measure a checkpoint, or several as an ensemble, and write metrics, predictions, charts and a page.

    An ensemble predicts the mean of its members' calibrated probabilities. ``predictions.parquet`` has one row per
    image, in the split's order: id, label, predicted, confidence (the highest probability), p_angry … p_neutral (csv
    order, whatever the checkpoints' order), tta_std and leaked. ``mistakes.png`` is absent if there are no mistakes.

    Args:
        checkpoints: path or URL of a checkpoint folder, or of several for images of the dataset's size.
        dataset: path or URL of a prepared dataset.
        output: path or URL of the folder to write. It must be absent or empty.
        split: the split; None for test, or for validation if the dataset has no test split.
        tta: names from ``fer_ray.inference.tta_names.TTA_NAMES``. Charts and predictions are those of the last one.
        precision: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        UsageError: a TTA, precision or split is unknown, a checkpoint is named twice, the output is in use or in an
            input, or memory doesn't hold a single image.
        DataError: a checkpoint or the dataset can't be read, or they differ in image size or labels.
    """
    start, names = this_start(), _check_tta(tta)
    folders = [checkpoints] if isinstance(checkpoints, (Path, str)) else checkpoints
    with claimed(output, inputs=[*folders, dataset]) as dest, memory_errors(LESS_MEMORY):
        evaluation = _evaluate(checkpoints, dataset, dest.path, split, names, precision, start)
        dest.save()
    return EvaluationResult(dest.place, evaluation)


def _evaluate(
    checkpoints: Path | str | Sequence[Path | str],
    dataset: Path | str,
    folder: Path,
    split: str | None,
    names: list[str],
    precision: str,
    start: Start,
) -> Evaluation:
    dtype = resolve_precision(precision, pick_device())
    data = PreparedDataset(dataset)
    folders = local_copies(checkpoints)
    members = load_members(folders, data.info.size)
    split = _choose_split(data, split)
    rows = data.load(split)
    if not len(rows):
        raise DataError(
            f"{data.path_or_url}: no row of its {split} split has a label. Choose another split or dataset."
        )
    predictor = Predictor(members, precision=precision)
    outcomes = {name: _predict(predictor, name, rows) for name in names}
    main, _ = outcomes[names[-1]]
    evaluation = Evaluation(
        fer_ray_version=VERSION,
        members=measure_members(folders, members, rows.labels, main),
        pairs=compare_members(rows.labels, main.members.argmax(axis=2)),
        dataset=data.path_or_url,
        dataset_fingerprint=data.info.fingerprint,
        split=split,
        rows=len(rows),
        leaked_rows=int(rows.leaked.sum()),
        label_names=list(EMOTIONS),
        device=pick_device().type,
        precision=str(dtype).removeprefix("torch."),
        main_tta=names[-1],
        tta=_measure_all(rows, outcomes),
        notes=_notes(members, data, split, int(rows.leaked.sum())),
    )
    write_evaluation(folder, evaluation, rows, main, start)
    return evaluation


def _check_tta(tta: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(tta))
    twice = [name for name in names if list(tta).count(name) > 1]
    problems = [problem for name in names if (problem := tta_problem("--tta", name))]
    problems += [f"--tta {name}: is named more than once. Name it once." for name in twice]
    if not names:
        problems = [f"--tta: none given. Name one or more of {', '.join(TTA_NAMES)}, separated by commas."]
    if problems:
        raise UsageError(problems)
    return names


def _choose_split(data: PreparedDataset, split: str | None) -> str:
    if split is not None:
        data.files(split)  # raises where the dataset has none
        return split
    for name in ("test", "validation"):
        if name in data.info.splits:
            if name != "test":
                say(
                    f"{data.path_or_url} has no test split: measuring on {name}, on which training chooses checkpoints."
                )
            return name
    raise UsageError(f"{data.path}: has neither a test nor a validation split. Name one with --split.")


def _notes(members: Sequence[Checkpoint], data: PreparedDataset, split: str, leaked: int) -> list[str]:
    notes, fitted = list[str](), [member.info.temperature != 1 for member in members]
    own = [member.info.dataset_fingerprint == data.info.fingerprint for member in members]
    if split == "validation" and any(own):
        notes.append("The checkpoint was chosen on validation images, so these are not test results.")
        if any(map(operator.and_, own, fitted)):
            notes.append(
                "The temperature was fitted on the same images, so calibration looks better here than on new images."
            )
    if split == "train" and any(own):
        notes.append("These are results on training images.")
    if data.info.source_format == "synthetic":
        notes.append("The images are drawn faces: these results say nothing about real faces.")
    if not all(fitted):
        which = "The checkpoint has" if len(members) == 1 else f"{fitted.count(False)} of the checkpoints have"
        notes.append(f"{which} temperature 1: the probabilities are not calibrated.")
    if not all(own):
        which = "The checkpoint was" if len(members) == 1 else "A checkpoint was"
        known = (
            "the images counted as leaked may not be those that it was trained on"
            if leaked
            else "it may have been trained on some of these images"
        )
        notes.append(f"{which} trained on another prepared dataset, so {known}.")
    return notes


def _predict(predictor: Predictor, tta: str, rows: Split) -> tuple[Predictions, float]:
    """Return the predictions and their speed in images/s."""
    say(f"predicting {amount(len(rows), 'image')}, TTA {tta}")
    predictor.tta = tta
    predictor.predict(rows.images[: predictor.batch_size])  # warm-up
    began = time.monotonic()
    predictions = predictor.predict(rows.images)
    return predictions, len(rows) / (time.monotonic() - began)


def _measure_all(rows: Split, outcomes: dict[str, tuple[Predictions, float]]) -> dict[str, TtaScores]:
    fewest, _ = min(outcomes.values(), key=lambda outcome: outcome[0].views.mean())
    return {name: _measure(rows, predictions, speed, fewest) for name, (predictions, speed) in outcomes.items()}


def _measure(rows: Split, predictions: Predictions, images_per_s: float, fewest: Predictions) -> TtaScores:
    is_fewest = predictions is fewest
    kept, probabilities = ~rows.leaked, predictions.probabilities
    uncalibrated = score_predictions(rows.labels, predictions.uncalibrated)
    return TtaScores(
        official=score_predictions(rows.labels, probabilities),
        without_leaked=score_predictions(rows.labels[kept], probabilities[kept]) if kept.any() else None,
        images_per_s=images_per_s,
        views=float(predictions.views.mean()),
        ece_uncalibrated=uncalibrated.ece,
        nll_uncalibrated=uncalibrated.nll,
        reliability=reliability_bins(rows.labels, probabilities),
        against_fewest=None if is_fewest else compare(rows.labels, predictions.labels, fewest.labels),
    )


def command(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Checkpoint folders, such as RUN/checkpoint. Several form an ensemble.")
    ],
    dataset: Annotated[str, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    output: Annotated[str, typer.Option(help="Folder to write. It must be absent or empty.")],
    split: Annotated[
        str | None, typer.Option(help="train, validation or test. Default: test, or validation if there is no test.")
    ] = None,
    tta: Annotated[
        str,
        typer.Option(
            help=f"Test-time augmentations, separated by commas: {', '.join(TTA_NAMES)}. Charts and predictions are"
            " those of the last one."
        ),
    ] = "none,flip",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
) -> None:
    """Measure a checkpoint or an ensemble on a split, with and without the images that are also in train."""
    names = [name.strip() for name in tta.split(",") if name.strip()]
    result = evaluate(checkpoints, dataset, output, split=split, tta=names, precision=precision)
    print(describe(result.evaluation))
    print(f"Report: {result.path}/report.html")


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["evaluate", *sys.argv[1:]])
