"""Find labels that are likely wrong, by networks that were trained without the images that they judge.

Networks train on rows of train only. So corrections of train hold nothing of the labels of validation, and a network
that is trained on corrected labels can be measured there.

``audit.parquet`` has a row for each labelled image of train and validation, in the dataset's order: ``id``; ``split``;
``label`` and ``proposed``, the most probable label, int8, csv order; ``p_angry`` to ``p_neutral``, calibrated
probabilities; ``rank`` and ``kind`` as in ``fer_ray.inference.label_quality``; ``conflict``, whether a copy
has another label; ``fold``.
"""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["audit", *sys.argv[1:]])

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_ray.config.options import AuditOptions
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount, duration
from fer_ray.dataset.corrections import COLUMNS
from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS, PROBABILITY_COLUMNS
from fer_ray.errors import UsageError
from fer_ray.inference.label_quality import LIKELY_WRONG, label_quality
from fer_ray.inference.predictor import Predictor
from fer_ray.reporting.audit import audit_section, describe_audit
from fer_ray.reporting.html import render_page
from fer_ray.search.confirmation import with_seed
from fer_ray.search.database import translate_database_errors
from fer_ray.search.folder import SearchFolder, open_study
from fer_ray.search.on_ray.preflight import measure_costs, measure_where_tight, preflight
from fer_ray.search.on_ray.run_trials import run_trials
from fer_ray.search.plan import summary
from fer_ray.search.request import SearchRequest, check_request
from fer_ray.search.trial_records import FOLDER, error_line
from fer_ray.storage.local import write_whole
from fer_ray.storage.output import open_output
from fer_ray.storage.provenance import record_start
from fer_ray.training.folds import FoldTraining, make_folds
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import RunFolder

AUDIT_FILE, PAGE_FILE, CORRECTIONS_FILE = "audit.parquet", "audit.html", "corrections.csv"


@dataclass(frozen=True)
class AuditResult:
    """A finished audit."""

    path: Path | str  # path or URL of the output folder
    table: pd.DataFrame  # the contents of ``audit.parquet``


@stage(AuditOptions)
def audit(options: AuditOptions) -> AuditResult:
    """Train a network without each fold, judge the labels of that fold, and write table, page and corrections.

    Raises:
        UsageError: invalid arguments (all problems at once); a label with too few images for the folds; trainings that
            don't fit the cluster, or one that failed.
        DataError: the dataset can't be read, or the interrupted audit used another one.
    """
    request = check_request(options.search)
    with open_output(request.run, options.resume, is_resumable=lambda output: output.folders()) as output:
        output.fetch()
        folder = SearchFolder(output)
        train, rows, folds = _folds(request)
        runs = _train_folds(request, train, folds[: len(train)], folder)
        if not output.exists(AUDIT_FILE):
            _write(rows, len(train), folds, _out_of_fold(rows, folds, runs), folder)
        for done in (folder.trials, folder.ray):
            done.clear()
        with output.open(AUDIT_FILE) as file:
            return AuditResult(output.file(), pd.read_parquet(file))


def _folds(request: SearchRequest) -> tuple[Split, Split, np.ndarray]:
    """Return the labelled rows of train, these with those of validation after them, and the fold of each of all."""
    ((_, space),) = request.spaces.items()
    train, other = request.dataset.load("train"), request.dataset.load("validation")
    pairs = ((train.images, other.images), (train.labels, other.labels), (train.leaked, other.leaked))
    images, labels, leaked = map(np.concatenate, pairs)
    rows = Split(train.ids + other.ids, images, labels, leaked)
    return train, rows, make_folds(rows, request.options.trials, space.training.seed)


def _train_folds(request: SearchRequest, train: Split, folds: np.ndarray, folder: SearchFolder) -> list[RunFolder]:
    """Train the networks that aren't trained yet, as trials of a search; return all of their folders, by fold."""
    ((key, space),) = request.spaces.items()
    seed, count = space.training.seed, request.options.trials
    wanted = {f"fold{fold + 1}": with_seed(space, seed + fold) for fold in range(count)}
    with translate_database_errors(folder.database):
        first = [(key, config, {FOLDER: name}) for name, config in wanted.items()]
        study = open_study(request, folder, folder.database, first)
        complete = {record.folder for record in study.records() if record.state == "COMPLETE"}
        for name in sorted(wanted.keys() - complete - study.folders_in_use()):  # failed in an earlier call
            study.enqueue(key, wanted[name], {FOLDER: name})
        if left := count - len(complete):
            record_start(folder.path)
            data = TrainingData(train, train, request.dataset.info)
            # As for all networks: with fewer, each would have more threads, and other results in the last bits.
            allocation, _ = preflight(request, data, count, measure_where_tight)
            say(summary(allocation))
            fit_fold, trials, save = FoldTraining(folds, seed), study.counted() + left, folder.save
            run_trials(study, trials, data, fit_fold, allocation, folder, folder.trials, save, title="training")
    ended = {record.folder: record for record in study.records()}
    if failed := [record for record in ended.values() if record.state != "COMPLETE"]:
        raise UsageError(
            f"{folder.output.path_or_url}: {len(failed)} of {amount(count, 'trial')} failed. The first error:"
            f" {error_line(failed[0].error).rstrip('.')}. Fix the cause, then continue with --resume."
        )
    return [RunFolder(folder.trials.within(name)) for name in wanted]


def _out_of_fold(rows: Split, folds: np.ndarray, runs: list[RunFolder]) -> np.ndarray:
    """Return calibrated probabilities of each row, float32, n × 7, by the last epoch of its fold's network.

    The last epoch, because the best one is chosen by labels that are judged. A network's temperature is fitted to them
    too, but that is one number.
    """
    probabilities = np.empty((len(rows), len(EMOTIONS)), np.float32)
    with ProgressBar("predicting", len(rows)) as bar:
        for fold, run in enumerate(runs):
            run.output.fetch(run.last.name)
            held_out = np.flatnonzero(folds == fold)
            # float32, so that the audit depends on no measured speed.
            probabilities[held_out] = (
                Predictor(run.last, "flip", "float32").predict(rows.images[held_out]).probabilities
            )
            run.output.forget()
            bar.advance(len(held_out))
    return probabilities


def _write(rows: Split, train: int, folds: np.ndarray, probabilities: np.ndarray, folder: SearchFolder) -> None:
    """Write the files of an audit, of which ``train`` rows are of train; the table last: it marks the audit as done."""
    quality = label_quality(rows.labels, probabilities)
    frame = pd.DataFrame(
        {
            "id": rows.ids,
            "split": np.where(np.arange(len(rows)) < train, "train", "validation"),
            "label": rows.labels.astype(np.int8),
            "proposed": quality.proposed.astype(np.int8),
            **dict(zip(PROBABILITY_COLUMNS, probabilities.T, strict=True)),
            "rank": quality.rank,
            "kind": quality.kind,
            "fold": folds.astype(np.int8),
        }
    )
    copies = frame.groupby([hashlib.blake2b(image, digest_size=16).digest() for image in rows.images])
    frame["conflict"] = copies["label"].transform("nunique") > 1
    ranked = frame.assign(first_rank=copies["rank"].transform("min"))
    section = audit_section(rows.images, ranked, quality, folder.path, folder.output.path_or_url)
    write_whole(folder.path / PAGE_FILE, render_page("Audit of labels", [section]))
    wrong = frame[frame["kind"] == LIKELY_WRONG].sort_values(["conflict", "rank"], ascending=[False, True])
    names = {column: np.array(EMOTIONS)[wrong[column]] for column in ("label", "proposed")}
    write_whole(folder.path / CORRECTIONS_FILE, wrong.assign(**names, keep="yes")[COLUMNS].to_csv(index=False))
    folder.save()
    folder.output.write(AUDIT_FILE, frame.to_parquet())


def command(options: AuditOptions) -> None:
    """Audit, and print the result; or print the plan."""
    if options.dry_run:
        print(_describe_plan(check_request(options.search)))
    else:
        result = audit.run(options)
        print(describe_audit(result.table))
        print(f"Audit: {result.path}/{PAGE_FILE}; proposed corrections: {result.path}/{CORRECTIONS_FILE}")


def _describe_plan(request: SearchRequest) -> str:
    (train, _, folds), count = _folds(request), request.options.trials
    data = TrainingData(train, train, request.dataset.info)
    allocation, costs = preflight(request, data, count, measure_costs)
    ((key, space),) = request.spaces.items()
    whole = costs[key].trial_seconds(space, space.training.epochs, data.info, 1)
    rounds, one = math.ceil(count / allocation.concurrent), whole * (1 - 1 / count)
    return (
        f"{amount(count, 'trial')} of {key}, {amount(space.training.epochs, 'epoch')} each; images by fold:"
        f" {np.bincount(folds).tolist()}\n{summary(allocation)}\ntime:"
        f" {duration(rounds * one)} = {rounds} × {duration(one)}; one network on all of train takes {duration(whole)}"
    )
