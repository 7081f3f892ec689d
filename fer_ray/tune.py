"""Search hyperparameters and architectures: Ray Tune runs the trials, an Optuna study chooses and remembers them."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["tune", *sys.argv[1:]])

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fer_ray.cluster.connect import nodes
from fer_ray.config.stage_options import stage
from fer_ray.config.tune_options import TuneOptions
from fer_ray.console.progress import say
from fer_ray.reporting.html import render_page
from fer_ray.reporting.search import confirmation_notes, confirmation_table, search_section
from fer_ray.search.confirmation import SEEDS, Confirmed, best_configurations, confirmed, open_confirmation
from fer_ray.search.database import translate_database_errors
from fer_ray.search.folder import SearchFolder, is_begun, open_study, write_table
from fer_ray.search.on_ray.preflight import Measure, allocate_cluster, measure_costs, measure_where_tight, preflight
from fer_ray.search.on_ray.run_trials import run_trials
from fer_ray.search.on_ray.trial import TrainFunction
from fer_ray.search.plan import describe_plan, summary
from fer_ray.search.request import SearchRequest, check_request
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord, describe_best
from fer_ray.storage.local import write_whole
from fer_ray.storage.output import open_output
from fer_ray.storage.provenance import record_start
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData


@dataclass(frozen=True)
class TuneResult:
    """A finished search."""

    best: TrialRecord  # the best complete trial by the first objective; if none is complete, that with the best epoch
    checkpoint: Path | str  # checkpoint folder of the best trial
    config_file: Path | str  # configuration of the best trial, for ``train --config``
    trials: list[TrialRecord]  # all finished trials, by number
    confirmed: list[Confirmed]  # the configurations that were trained again with new seeds, best mean first


@stage(TuneOptions)
def tune(options: TuneOptions) -> TuneResult:
    """Search for the configuration with the best validation score and keep its checkpoint.

    Raises:
        UsageError: invalid arguments or spaces (all problems at once); trials that don't fit the cluster or the disk;
            all trials failed, or no trial had time for an epoch.
        DataError: the dataset can't be read, or the earlier search used another dataset.
    """
    return search(check_request(options), fit)


def search(request: SearchRequest, train: TrainFunction, measure: Measure = measure_where_tight) -> TuneResult:
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
            study = open_study(request, folder, storage)
            record_start(folder.path)
            folder.keep_best(study)
            try:
                left = request.options.trials - study.counted()
                if left > 0:
                    allocation, _ = plan or preflight(request, data, left, measure)
                    say(summary(allocation))
                    run_trials(
                        study,
                        request.options.trials,
                        data,
                        train,
                        allocation,
                        folder,
                        folder.trials,
                        partial(folder.keep_best, study),
                        request.options.seconds,
                        request.options.loggers,
                    )
            finally:
                write_table(study, folder.table)
                _write_page(folder, study, storage)
                folder.save()
            best = folder.finish(study)
            found = _confirm(request, data, study, folder, storage, train) if request.options.confirm else []
        made = output.file(folder.best.name), output.file(folder.best_config.name)
        return TuneResult(best, *made, study.records(), found)


def _confirm(
    request: SearchRequest, data: TrainingData, study: Study, folder: SearchFolder, storage: str, train: TrainFunction
) -> list[Confirmed]:
    """Train the best configurations with new seeds, as far as that isn't done, and add them to the page."""
    if not best_configurations(study.records()):
        say("No trial is complete, so there is none to confirm.")
        return []
    runs = open_confirmation(study, storage)
    runs.interrupt_running()
    folder.begin(study.name, runs.name)
    trials = len(runs.spaces) * SEEDS
    try:
        if left := trials - runs.counted():
            allocation = allocate_cluster(request, left, {})
            say(f"Confirming trials {', '.join(runs.spaces)} with {SEEDS} new seeds each.")
            run_trials(runs, trials, data, train, allocation, folder, folder.confirm, folder.save, title="confirming")
    finally:
        for record in runs.records():
            if record.state == "COMPLETE":
                folder.confirm.within(record.folder).within("last").clear()
        write_table(runs, folder.confirm_table)
        _write_page(folder, study, storage)
        folder.ray.clear()
        folder.save()
    return confirmed(study, runs)


def _write_page(folder: SearchFolder, study: Study, storage: str) -> None:
    _, name = folder.study_names()
    runs = Study.read(name, storage) if name else None
    section = search_section(folder.path, folder.output.path_or_url, study, confirmed(study, runs))
    write_whole(folder.page, render_page("Search", [section]))


def command(options: TuneOptions) -> None:
    """Search, and print the result; or print the plan."""
    request = check_request(options)
    if options.dry_run:
        allocation, costs = preflight(request, TrainingData.load(request.dataset), options.trials, measure_costs)
        print(describe_plan(request, allocation, costs, nodes()))
    else:
        _print_result(search(request, fit), request)


def _print_result(result: TuneResult, request: SearchRequest) -> None:
    states = [record.state for record in result.trials if not record.interrupted]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL"))
    if more := len(result.trials) - len(states):
        counts += f"; {more} interrupted, not counted"
    print(f"best: {describe_best(result.best, request.strategy)}")
    print(f"{len(states)} trials ({counts}); checkpoint: {result.checkpoint}; configuration: {result.config_file}")
    if found := result.confirmed:
        first = request.strategy.first
        print("", confirmation_table(found, first).as_text(), "", *confirmation_notes(found, first), sep="\n")
