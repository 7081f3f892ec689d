"""Measure a checkpoint on a split of a prepared dataset, with and without images that also stand in train."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from fer_ray import __version__
from fer_ray.config import did_you_mean
from fer_ray.data.store import PreparedDataset, Split
from fer_ray.emotions import EMOTIONS, NUM_CLASSES, csv_order
from fer_ray.errors import DataError, UsageError
from fer_ray.files import claim_output, local_path, whole_folder
from fer_ray.learning.calibration import reliability_bins
from fer_ray.learning.checkpoint import Checkpoint, load_checkpoint
from fer_ray.learning.device import pick_device, resolve_precision
from fer_ray.learning.evaluation import (
    CONFUSION_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    SAMPLES_FILE,
    Evaluation,
    Member,
    Scores,
    TtaScores,
    score_predictions,
)
from fer_ray.learning.predictor import Predictor
from fer_ray.learning.tta import VIEW_COUNTS, VIEWS
from fer_ray.progress import say
from fer_ray.provenance import Start, record_start, this_start
from fer_ray.reporting.confusion import save_confusion
from fer_ray.reporting.evaluation import accuracy_text, evaluation_section, spread, write_samples
from fer_ray.reporting.html import render_page
from fer_ray.reporting.model_card import CARD_FILE, model_card

_CORRECT_SAMPLES, _WRONG_SAMPLES = 2, 3  # a class
_WARM_UP = 64  # images predicted before the clock starts


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation.

    Attributes:
        path: the output folder.
        evaluation: the contents of its ``metrics.json``.
    """

    path: Path
    evaluation: Evaluation

    @property
    def scores(self) -> Scores:
        """Figures on the official split under the main TTA."""
        return self.evaluation.tta[self.evaluation.main_tta].official


@dataclass(frozen=True)
class _Outcome:
    """What one TTA predicts for the rows of a split: probabilities n × K and their spread, n, in csv order."""

    probabilities: np.ndarray
    tta_std: np.ndarray
    images_per_s: float
    views: int

    @property
    def predicted(self) -> np.ndarray:
        labels: np.ndarray = self.probabilities.argmax(axis=1)
        return labels


def evaluate(
    checkpoint: Path | str,
    dataset: Path | str,
    output: Path | str,
    *,
    split: str | None = None,
    tta: Sequence[str] = ("none", "flip"),
    precision: str = "auto",
) -> EvaluationResult:
    """Measure a checkpoint and write ``metrics.json``, ``predictions.parquet``, pictures and ``report.html``.

    ``predictions.parquet`` has a row an image, in the split's order: id, label, predicted and p_angry … p_neutral in
    csv order whatever the checkpoint's, confidence (the highest probability), tta_std and leaked.

    Args:
        checkpoint: a checkpoint folder.
        dataset: a folder that ``prepare`` wrote.
        output: the folder to make; absent or empty before, whole or absent after.
        split: which split; None takes test, or validation where the dataset has no test split.
        tta: names in ``fer_ray.learning.tta.VIEWS``; pictures and predictions are those of the last one.
        precision: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        UsageError: no such TTA, precision or split, or an output folder in use.
        DataError: checkpoint or dataset can't be read, or they differ in image size or labels.
    """
    start, names = this_start(), _check_tta(tta)
    folder = claim_output(output)
    dtype = resolve_precision(precision, pick_device())
    loaded = load_checkpoint(local_path(checkpoint))
    data = PreparedDataset(local_path(dataset))
    order = csv_order(loaded.info.label_names)
    if loaded.info.size != data.info.size:
        raise DataError(
            f"{checkpoint}: takes images of {loaded.info.size} pixels, {data.path} holds {data.info.size}."
            f" Prepare the dataset with --size {loaded.info.size}."
        )
    split = _choose_split(data, split)
    rows = data.load(split)
    if not len(rows):
        raise DataError(f"{data.path}: no row of its {split} split has a label. Choose another split or dataset.")
    outcomes = {name: _predict(loaded, name, precision, rows, order) for name in names}
    evaluation = Evaluation(
        fer_ray_version=__version__,
        members=[_member(local_path(checkpoint), loaded, rows, outcomes[names[-1]])],
        pairs=[],
        dataset=str(data.path),
        dataset_fingerprint=data.info.fingerprint,
        split=split,
        rows=len(rows),
        leaked_rows=int(rows.leaked.sum()),
        label_names=list(EMOTIONS),
        device=pick_device().type,
        precision=str(dtype).removeprefix("torch."),
        main_tta=names[-1],
        tta={name: _measure(rows, outcome) for name, outcome in outcomes.items()},
        notes=_notes(loaded, data, split),
    )
    _write(folder, evaluation, rows, outcomes[names[-1]], start)
    return EvaluationResult(folder, evaluation)


def _check_tta(tta: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(tta))
    problems = [
        f"--tta {name}: no such test-time augmentation.{did_you_mean(name, VIEWS)} Known: {', '.join(VIEWS)}."
        for name in names
        if name not in VIEWS
    ]
    if not names:
        problems = [f"--tta: none given. Name one or more of {', '.join(VIEWS)}, with commas between."]
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
                say(f"{data.path} has no test split: measuring on {name}, by which checkpoints are chosen.")
            return name
    raise UsageError(f"{data.path}: has neither a test nor a validation split. Name one with --split.")


def _notes(checkpoint: Checkpoint, data: PreparedDataset, split: str) -> list[str]:
    notes = []
    if split == "validation":
        notes.append("Validation images choose the checkpoint, so these are no test figures.")
    if split == "train":
        notes.append("These are figures on training images.")
    if checkpoint.info.dataset_fingerprint != data.info.fingerprint:
        notes.append(
            "The checkpoint was trained on another prepared dataset than this one, so images counted here as leaked"
            " need not be those it has seen."
        )
    return notes


def _predict(checkpoint: Checkpoint, tta: str, precision: str, rows: Split, order: list[int]) -> _Outcome:
    say(f"predicting {len(rows):,} images, TTA {tta}")
    predictor = Predictor(checkpoint, tta, precision)
    predictor.predict(rows.images[:_WARM_UP])
    began = time.monotonic()
    predictions = predictor.predict(rows.images)
    seconds = time.monotonic() - began
    return _Outcome(predictions.probabilities[:, order], predictions.tta_std, len(rows) / seconds, VIEW_COUNTS[tta])


def _member(path: Path, checkpoint: Checkpoint, rows: Split, outcome: _Outcome) -> Member:
    scores = score_predictions(rows.labels, outcome.probabilities)
    return Member(
        checkpoint=str(path),
        architecture=checkpoint.info.config.model.name,
        parameters=sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        epoch=checkpoint.info.epoch,
        temperature=checkpoint.info.temperature,
        accuracy=scores.accuracy,
        nll=scores.nll,
        share=None,
    )


def _measure(rows: Split, outcome: _Outcome) -> TtaScores:
    kept = ~rows.leaked
    official = score_predictions(rows.labels, outcome.probabilities)
    return TtaScores(
        official=official,
        without_leaked=score_predictions(rows.labels[kept], outcome.probabilities[kept]) if kept.any() else None,
        images_per_s=outcome.images_per_s,
        views=outcome.views,
        ece_uncalibrated=official.ece,
        nll_uncalibrated=official.nll,
        reliability=reliability_bins(rows.labels, outcome.probabilities),
    )


def _write(folder: Path, evaluation: Evaluation, rows: Split, outcome: _Outcome, start: Start) -> None:
    with whole_folder(folder) as partial:
        record_start(partial, start)
        (partial / METRICS_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        pq.write_table(_predictions(rows, outcome), partial / PREDICTIONS_FILE)
        counts = np.array(evaluation.tta[evaluation.main_tta].official.confusion)
        save_confusion(counts, EMOTIONS, f"{evaluation.split}, TTA {evaluation.main_tta}", partial / CONFUSION_FILE)
        _write_samples(partial / SAMPLES_FILE, rows, outcome)
        (partial / "report.html").write_text(render_page("Evaluation", [evaluation_section(partial, folder)]), "utf-8")
        (partial / CARD_FILE).write_text(model_card(partial, folder.name), "utf-8")


def _predictions(rows: Split, outcome: _Outcome) -> pa.Table:
    columns = {
        "id": rows.ids,
        "label": rows.labels.astype(np.int8),
        "predicted": outcome.predicted.astype(np.int8),
        "confidence": outcome.probabilities.max(axis=1),
        **{f"p_{name}": outcome.probabilities[:, label] for label, name in enumerate(EMOTIONS)},
        "tta_std": outcome.tta_std,
        "leaked": rows.leaked,
    }
    return pa.table(columns)


def _write_samples(file: Path, rows: Split, outcome: _Outcome) -> None:
    right = outcome.predicted == rows.labels
    chosen = [
        spread(np.flatnonzero((rows.labels == label) & (right == wanted)), count)
        for wanted, count in ((True, _CORRECT_SAMPLES), (False, _WRONG_SAMPLES))
        for label in range(NUM_CLASSES)
    ]
    numbers = np.concatenate(chosen)
    columns = {
        "id": [rows.ids[number] for number in numbers],
        "label": [EMOTIONS[label] for label in rows.labels[numbers]],
        "predicted": [EMOTIONS[label] for label in outcome.predicted[numbers]],
        "confidence": outcome.probabilities[numbers].max(axis=1),
    }
    write_samples(file, columns, rows.images[numbers])


def describe(evaluation: Evaluation) -> str:
    """Return the figures as a table of plain text."""
    lines = [
        f"{evaluation.members[0].architecture} on {evaluation.split}: {evaluation.rows:,} images,"
        f" {evaluation.leaked_rows:,} of them also in train",
        "",
        f"{'TTA':12}{'rows':17}{'images':>8}  {'accuracy':>24}{'macro-F1':>10}{'images/s':>10}",
    ]
    for name, measured in evaluation.tta.items():
        for what, scores in (("official", measured.official), ("without leaked", measured.without_leaked)):
            if scores and (evaluation.leaked_rows or what == "official"):
                accuracy = accuracy_text(scores)
                speed = f"{measured.images_per_s:>10,.0f}" if what == "official" else ""
                lines.append(f"{name:12}{what:17}{scores.rows:>8,}  {accuracy:>24}{scores.macro_f1:>10.3f}{speed}")
    official = evaluation.tta[evaluation.main_tta].official
    lines += ["", f"{evaluation.main_tta + ', official':20}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}"]
    for name, one in official.classes.items():
        lines.append(f"{name:20}{one.precision:>10.3f}{one.recall:>10.3f}{one.f1:>10.3f}{one.support:>10,}")
    return "\n".join([*lines, "", "Brackets hold the 95% interval.", *evaluation.notes])


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, such as RUN/checkpoint.")],
    dataset: Annotated[Path, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    output: Annotated[Path, typer.Option(help="The folder to make. It must be absent or empty.")],
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; without it test, or validation if there is no test.")
    ] = None,
    tta: Annotated[
        str,
        typer.Option(
            help=f"Test-time augmentations, with commas between, of {', '.join(VIEWS)}. Pictures and predictions are"
            " those of the last."
        ),
    ] = "none,flip",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
) -> None:
    """Measure a checkpoint on a split: each class's figures, with and without images that also stand in train."""
    names = [name.strip() for name in tta.split(",") if name.strip()]
    result = evaluate(checkpoint, dataset, output, split=split, tta=names, precision=precision)
    print(describe(result.evaluation))
    print(f"Report: {result.path / 'report.html'}")


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["evaluate", *sys.argv[1:]])
