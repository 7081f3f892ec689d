"""Measure checkpoints on a split of a prepared dataset, with and without images that also stand in train."""

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
        path: the output folder, or its URL.
        evaluation: the contents of its ``metrics.json``.
    """

    path: Path | str
    evaluation: Evaluation

    @property
    def scores(self) -> Scores:
        """Figures on the official split under the main TTA."""
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
    """Measure a checkpoint, or several as one classifier, and write figures, predictions, pictures and a page.

    Several predict the mean of their calibrated probabilities. ``predictions.parquet`` has a row an image, in the
    split's order: id, label, predicted and p_angry … p_neutral in csv order whatever the checkpoints', confidence (the
    highest probability), tta_std and leaked. ``mistakes.png`` is absent where there are none.

    Args:
        checkpoints: a checkpoint folder, or several that take images of the dataset's size.
        dataset: a folder that ``prepare`` wrote.
        output: the folder to make; absent or empty before, whole or absent after.
        split: which split; None takes test, or validation where the dataset has no test split.
        tta: among ``fer_ray.inference.tta_names.TTA_NAMES``; pictures and predictions are those of the last one.
        precision: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        UsageError: no such TTA, precision or split, a checkpoint named twice, an output in use or in an input, or
            memory suffices for no image.
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
        problems = [f"--tta: none given. Name one or more of {', '.join(TTA_NAMES)}, with commas between."]
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
                    f"{data.path_or_url} has no test split: measuring on {name}, by which training chooses checkpoints."
                )
            return name
    raise UsageError(f"{data.path}: has neither a test nor a validation split. Name one with --split.")


def _notes(members: Sequence[Checkpoint], data: PreparedDataset, split: str, leaked: int) -> list[str]:
    notes, fitted = list[str](), [member.info.temperature != 1 for member in members]
    own = [member.info.dataset_fingerprint == data.info.fingerprint for member in members]
    if split == "validation" and any(own):
        notes.append("Validation images choose the checkpoint, so these are no test figures.")
        if any(map(operator.and_, own, fitted)):
            notes.append("The temperature was fitted on them too, so calibration looks better here than on new images.")
    if split == "train" and any(own):
        notes.append("These are figures on training images.")
    if data.info.source_format == "synthetic":
        notes.append("The images are drawn faces: these figures say nothing about real ones.")
    if not all(fitted):
        which = "The checkpoint has" if len(members) == 1 else f"{fitted.count(False)} of the checkpoints have"
        notes.append(f"{which} temperature 1: probabilities as the network gives them, not calibrated.")
    if not all(own):
        which = "The checkpoint was" if len(members) == 1 else "A checkpoint was"
        seen = "images counted here as leaked need not be those it has seen" if leaked else "what it has seen of these"
        rest = seen if leaked else f"{seen} images is not known"
        notes.append(f"{which} trained on another prepared dataset than this one, so {rest}.")
    return notes


def _predict(predictor: Predictor, tta: str, rows: Split) -> tuple[Predictions, float]:
    """Return the predictions, and how many images a second they took."""
    say(f"predicting {amount(len(rows), 'image')}, TTA {tta}")
    predictor.tta = tta
    predictor.predict(rows.images[: predictor.batch_size])  # before the clock starts
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
        list[str], typer.Argument(help="Checkpoint folders, such as RUN/checkpoint; several predict together.")
    ],
    dataset: Annotated[str, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    output: Annotated[str, typer.Option(help="The folder to make. It must be absent or empty.")],
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; without it test, or validation if there is no test.")
    ] = None,
    tta: Annotated[
        str,
        typer.Option(
            help=f"Test-time augmentations, with commas between, of {', '.join(TTA_NAMES)}. Pictures and predictions"
            " are those of the last."
        ),
    ] = "none,flip",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
) -> None:
    """Measure a checkpoint, or several together, on a split, with and without images that also stand in train."""
    names = [name.strip() for name in tta.split(",") if name.strip()]
    result = evaluate(checkpoints, dataset, output, split=split, tta=names, precision=precision)
    print(describe(result.evaluation))
    print(f"Report: {result.path}/report.html")


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["evaluate", *sys.argv[1:]])
