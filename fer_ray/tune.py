"""Search hyperparameters and architectures: Ray Tune runs the trials, an Optuna study chooses and remembers them."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["tune", *sys.argv[1:]])

from dataclasses import dataclass, replace
from pathlib import Path

from fer_ray.cluster.connect import nodes
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.options import TuneOptions
from fer_ray.reporting.confirmation import confirmation_sentences
from fer_ray.reporting.html import render_page
from fer_ray.reporting.search import search_section
from fer_ray.search.confirmation import Confirmed, describe_runs, read_confirmation, seed_runs, write_confirmation
from fer_ray.search.database import translate_database_errors
from fer_ray.search.folder import SearchFolder, is_begun
from fer_ray.search.log import describe_best
from fer_ray.search.on_ray.confirm import train_seed_runs
from fer_ray.search.on_ray.preflight import Measure, allocate_cluster, measure_costs, measure_where_tight, preflight
from fer_ray.search.on_ray.run_trials import run_trials
from fer_ray.search.plan import describe_plan, summary
from fer_ray.search.request import SearchRequest, check_request
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord
from fer_ray.search.trial_reporter import TrainFunction
from fer_ray.storage.local import write_whole
from fer_ray.storage.output import open_output
from fer_ray.storage.provenance import record_start
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        best: the best complete trial by the first objective. If no trial is complete: the stopped trial with the best
            epoch; its ``state`` and ``stopped`` say so.
        checkpoint: checkpoint folder of the best trial.
        config_file: configuration of the best trial, for ``train --config``.
        trials: all finished trials, by number.
        confirmed: the configurations that were trained again with new seeds, best mean first.
    """

    best: TrialRecord
    checkpoint: Path | str
    config_file: Path | str
    trials: list[TrialRecord]
    confirmed: list[Confirmed]


@stage(TuneOptions)
def tune(options: TuneOptions) -> TuneResult:
    """Search for the configuration with the best validation score and keep its checkpoint.

    Raises:
        UsageError: invalid arguments or spaces (all problems at once); trials that don't fit the cluster or the disk;
            all trials failed, or no trial had time for an epoch.
        DataError: the dataset can't be read, or the earlier search used another dataset.
    """
    return search(check_request(options), fit)


def search(request: SearchRequest, objective: TrainFunction, measure: Measure = measure_where_tight) -> TuneResult:
    """Run a checked search with the given training function; ``tune`` passes ``fit``."""
    data = TrainingData.load(request.dataset)
    # A new search is planned before anything is written, because the plan may be refused.
    plan = None if request.options.resume else preflight(request, data, request.options.trials, measure)
    for note in request.strategy.notes():
        say(note)
    with open_output(request.run, request.options.resume, is_resumable=is_begun) as output:
        output.fetch()
        folder = SearchFolder(output)
        storage = request.options.storage or folder.database
        with translate_database_errors(storage):
            begin = _former_study if request.options.resume else _new_study
            study = begin(request, folder, storage)
            record_start(folder.path)
            folder.keep_best(study)
            try:
                left = request.options.trials - study.counted()
                if left > 0:
                    plan = plan or preflight(request, data, left, measure)
                    say(summary(plan))
                    run_trials(request, data, study, folder, objective, plan.allocation)
            finally:
                folder.write_table(study)
                _write_page(folder)
                folder.save()
            best = folder.finish(study)
            if request.options.confirm and best.stopped:
                say("No trial is complete, so there is none to confirm.")
            elif request.options.confirm:
                _confirm(request, data, study, folder)
                folder.save()
            confirmed = read_confirmation(folder.path)
        made = output.file(folder.best.name), output.file(folder.best_config.name)
        return TuneResult(best, *made, study.records(), confirmed)


def _write_page(folder: SearchFolder) -> None:
    write_whole(folder.page, render_page("Search", [search_section(folder.path, folder.output.path_or_url)]))


def _confirm(request: SearchRequest, data: TrainingData, study: Study, folder: SearchFolder) -> None:
    """Train the best configurations with new seeds, as far as that isn't done, and show them on the page."""
    first, errors = request.strategy.first, dict[str, str]()
    runs = seed_runs(study.records(), first, folder.output.within("confirm"))
    for run in runs:
        run.begin()
    left = [run for run in runs if not run.folder.closed()]
    try:
        if left:
            # A run is of one worker, which has all that a trial has, but for the GPUs: it computes on one.
            gpus = request.resources.gpus
            resources = replace(request.resources, workers=1, gpus=None if gpus is None else min(gpus, 1))
            allocation = allocate_cluster(replace(request, resources=resources), len(left), {})
            say(describe_runs(runs, left, allocation.concurrent))
            errors = train_seed_runs(left, data, allocation, first, folder.ray)
    finally:
        for run in left:
            run.folder.output.fetch()
        write_confirmation(folder.path, runs, first, errors)
        for run in runs:
            run.folder.output.forget()
        folder.ray.clear()
        _write_page(folder)


def _new_study(request: SearchRequest, folder: SearchFolder, storage: str) -> Study:
    name = folder.new_study_name()
    study = Study.create(name, storage, request.spaces, request.dataset.info.fingerprint, request.strategy)
    folder.begin(name)
    return study


def _former_study(request: SearchRequest, folder: SearchFolder, storage: str) -> Study:
    """Open the study of an earlier call, or a new one that begins with its trials where the spaces have changed."""
    study = Study.load(folder.study_name(), storage, request.dataset.info.fingerprint, request.strategy)
    interrupted = study.fail_interrupted()
    if study.searches(request.spaces):
        if interrupted:
            say(f"{amount(interrupted, 'trial')} of the previous call, interrupted, will be gone on with.")
        return study
    if interrupted:
        say(f"{amount(interrupted, 'trial')} of the previous call, interrupted, will be gone on with where they fit.")
    study = study.with_spaces(folder.new_study_name(), request.spaces)
    folder.begin(study.name)
    counted = [record for record in study.records() if not record.interrupted]
    if not counted:
        say("The spaces have changed, before any trial was finished.")
        return study
    outside = sum(record.is_outside for record in counted)
    say(
        f"The spaces have changed: {len(counted) - outside} of {len(counted)} earlier trials fit them, and the sampler"
        f" learns from these. The other {outside} stay in {folder.table.name} and compete for {folder.best.name}/."
    )
    return study


def command(options: TuneOptions) -> None:
    """Search, and print the result; or print the plan."""
    request = check_request(options)
    if options.dry_run:
        plan = preflight(request, TrainingData.load(request.dataset), options.trials, measure_costs)
        print(describe_plan(request, plan, nodes()))
    else:
        _print_result(search(request, fit), request)


def _print_result(result: TuneResult, request: SearchRequest) -> None:
    states = [record.state for record in result.trials if not record.interrupted]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL"))
    if more := len(result.trials) - len(states):
        counts += f"; {more} interrupted, not counted"
    print(f"best: {describe_best(result.best, request.strategy)}")
    print(f"{len(states)} trials ({counts}); checkpoint: {result.checkpoint}; configuration: {result.config_file}")
    for sentence in confirmation_sentences(result.confirmed, request.strategy.first) if request.options.confirm else ():
        print(sentence)
