"""Measure checkpoints on a split of a prepared dataset, with and without the images that are also in train."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["evaluate", *sys.argv[1:]])

import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.cluster.memory import memory_errors
from fer_ray.config.options import EvaluateOptions
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.calibration import expected_calibration_error, reliability_bins
from fer_ray.inference.checkpoint import Checkpoint
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
from fer_ray.reporting.evaluation import write_evaluation
from fer_ray.reporting.evaluation_tables import describe
from fer_ray.reporting.model_card import model_card
from fer_ray.storage.inputs import as_list
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import Output, open_output
from fer_ray.storage.provenance import Start, this_start
from fer_ray.version import VERSION


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation."""

    path: Path | str  # path or URL of the output folder
    evaluation: Evaluation  # the contents of its ``metrics.json``

    @property
    def scores(self) -> Scores:
        """Scores on the official split under the main TTA."""
        return self.evaluation.main.official


@stage(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> EvaluationResult:
    """Measure a checkpoint, or several as an ensemble, and write metrics, predictions, charts and a page.

    Raises:
        UsageError: the split is missing, a checkpoint is named twice, the output is in use or in an input, or memory
            doesn't hold a single image.
        DataError: a checkpoint or the dataset can't be read, or they differ in image size or labels.
    """
    start, folders = this_start(), [absolute(one) for one in as_list(options.checkpoints)]
    with open_output(options.output, inputs=[*folders, options.dataset]) as dest, memory_errors(LESS_MEMORY):
        evaluation = _evaluate(options, folders, dest, start)
    return EvaluationResult(dest.file(), evaluation)


def _evaluate(options: EvaluateOptions, checkpoints: Sequence[str], output: Output, start: Start) -> Evaluation:
    data = PreparedDataset(options.dataset)
    members = load_members(checkpoints, data.info.size)
    split = _choose_split(data, options.split)
    rows = data.load(split)
    if not len(rows):
        raise DataError(f"{data.path_or_url}: no row of its {split} split has a label. Choose another.")
    predictor = Predictor(members, precision=options.precision)
    outcomes = {name: _predict(predictor, name, rows) for name in options.tta}
    main, _ = outcomes[options.tta[-1]]
    fewest, _ = min(outcomes.values(), key=lambda outcome: outcome[0].views.mean())
    evaluation = Evaluation(
        fer_ray_version=VERSION,
        members=measure_members(checkpoints, members, rows.labels, main),
        pairs=compare_members(rows.labels, main.members.argmax(axis=2)),
        dataset=data.path_or_url,
        dataset_fingerprint=data.info.fingerprint,
        split=split,
        rows=len(rows),
        leaked_rows=int(rows.leaked.sum()),
        label_names=list(EMOTIONS),
        device=predictor.device.type,
        precision=predictor.precision,
        main_tta=options.tta[-1],
        tta={name: _measure(rows, *outcome, fewest) for name, outcome in outcomes.items()},
        notes=_notes(members, data, split),
    )
    card = model_card(evaluation, data.info, [member.info for member in members], output.path.name, start)
    write_evaluation(output, evaluation, rows, main, card, start)
    return evaluation


def _choose_split(data: PreparedDataset, split: str | None) -> str:
    if split is not None:
        data.files(split)  # raises where the dataset has none
        return split
    if "test" in data.info.splits:
        return "test"
    if "validation" not in data.info.splits:
        raise UsageError(f"{data.path_or_url}: has neither a test nor a validation split. Name one with --split.")
    say(f"{data.path_or_url} has no test split: measuring on validation, on which training chooses checkpoints.")
    return "validation"


def _notes(members: Sequence[Checkpoint], data: PreparedDataset, split: str) -> list[str]:
    notes, fitted = list[str](), [member.info.temperature != 1 for member in members]
    own = [member.info.dataset_fingerprint == data.info.fingerprint for member in members]
    if split == "validation" and any(own):
        notes.append("The checkpoint was chosen on validation images, so these are not test results.")
        if any(map(operator.and_, own, fitted)):
            notes.append("The temperature was fitted on the same images: calibration may be worse on new images.")
    if split == "train" and any(own):
        notes.append("These are results on training images.")
    notes += [note for note in data.info.notes if note.startswith("--corrections")]
    if data.info.source_format == "synthetic":
        notes.append("The images are drawn faces: these results say nothing about real faces.")
    if not all(fitted):
        which = "The checkpoint has" if len(members) == 1 else f"{fitted.count(False)} of the checkpoints have"
        notes.append(f"{which} temperature 1: the probabilities are not calibrated.")
    if not all(own):
        which = "The checkpoint was" if len(members) == 1 else "A checkpoint was"
        notes.append(f"{which} trained on another prepared dataset, so its copies of these images are unknown.")
    return notes


def _predict(predictor: Predictor, tta: str, rows: Split) -> tuple[Predictions, float]:
    """Return the predictions and their speed in images/s."""
    say(f"predicting {amount(len(rows), 'image')}, TTA {tta}")
    predictor.tta = tta
    predictor.predict(rows.images[: predictor.batch_size])  # warm-up
    began = time.monotonic()
    predictions = predictor.predict(rows.images)
    return predictions, len(rows) / (time.monotonic() - began)


def _measure(rows: Split, predictions: Predictions, images_per_s: float, fewest: Predictions) -> TtaScores:
    kept, probabilities = ~rows.leaked, predictions.probabilities
    return TtaScores(
        official=score_predictions(rows.labels, probabilities),
        without_leaked=score_predictions(rows.labels[kept], probabilities[kept]) if kept.any() else None,
        images_per_s=images_per_s,
        views=float(predictions.views.mean()),
        ece_uncalibrated=expected_calibration_error(reliability_bins(rows.labels, predictions.uncalibrated)),
        reliability=reliability_bins(rows.labels, probabilities),
        against_fewest=None if predictions is fewest else compare(rows.labels, predictions.labels, fewest.labels),
    )


def command(options: EvaluateOptions) -> None:
    """Evaluate, and print the result."""
    result = evaluate.run(options)
    print(describe(result.evaluation))
    print(f"Report: {result.path}/report.html")
