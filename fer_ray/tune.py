"""Search hyperparameters and architectures: Ray Tune runs the trials, an Optuna study chooses and remembers them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cluster.connect import nodes
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.reporting.confirmation import confirmation_sentences
from fer_ray.reporting.html import render_page
from fer_ray.reporting.search import search_section
from fer_ray.search.confirmation import SEEDS, Confirmed, best_configurations, confirmed, open_confirmation
from fer_ray.search.database import translate_database_errors
from fer_ray.search.folder import STORAGE_VARIABLE, SearchFolder, write_table
from fer_ray.search.on_ray.preflight import Measure, allocate_cluster, measure_costs, measure_where_tight, preflight
from fer_ray.search.on_ray.run_trials import run_trials
from fer_ray.search.plan import describe_plan, summary
from fer_ray.search.request import SearchArguments, SearchRequest, check_request
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord, describe_best
from fer_ray.search.trial_reporter import TrainFunction
from fer_ray.storage.local import write_whole
from fer_ray.storage.outputs import claimed
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


def tune(
    dataset: Path | str,
    spaces: Sequence[Path | str],
    output: Path | str,
    *,
    trials: int,
    time_budget: str | None = None,
    storage: str | None = None,
    max_concurrent: int | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    objective: str = "accuracy",
    sampler: str = "tpe",
    scheduler: str | None = None,
    workers_per_trial: int = 1,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    confirm: bool = False,
    loggers: Sequence[str] = (),
) -> TuneResult:
    """Search for the configuration with the best validation score and keep its checkpoint.

    Args:
        dataset: folder written by ``prepare``, with a validation split.
        spaces: YAML files with a ``search:`` section. With several files, the search also chooses among them.
        output: folder of the search: new or empty, or the folder of an earlier search with ``resume``.
        trials: number of finished trials in the study at the end, including those of earlier calls.
        time_budget: such as ``90s``, ``30m`` or ``2h``. After this time no trial starts, and running trials stop.
        storage: database URL of the study. Default: ``study.db`` in the output folder.
        max_concurrent: number of trials at once. Default: one per GPU or CPU core.
        resume: resume an earlier search, or add trials to a finished one.
        overrides: ``path.to.field=value`` changes to every space.
        objective: ``accuracy``, ``macro_f1``, or several separated by commas, such as ``accuracy,images_per_s``.
            ``best/`` holds the best trial by the first objective. ``trials.parquet`` marks the Pareto front.
        sampler: Optuna sampler: ``tpe``, ``gp``, ``cmaes``, ``random`` or ``qmc``.
        scheduler: rule that stops weak trials: ``asha``, ``hyperband``, ``median`` or ``none``. Default: ``asha``, or
            ``none`` with several objectives.
        workers_per_trial: processes that train one trial together. More than 1 use Ray Train and take about 20 s
            longer per trial on two cores.
        cpus_per_trial: CPUs of all workers of a trial together. Default: an equal part of the cluster.
        gpus_per_trial: GPUs of all workers of a trial together: 0, one per worker, or a fraction such as 0.25 for one
            worker. Default: one per worker if a trial finds that many, else 0.
        confirm: after the search, train the best three configurations again with three new seeds each. The time budget
            doesn't apply. ``confirm/`` holds the runs and ``confirm.parquet`` their results. ``best/`` doesn't change.
        loggers: ``tensorboard`` and ``mlflow``, which receive the results while trials run.

    Raises:
        UsageError: invalid arguments or spaces (all problems at once); trials that don't fit the cluster or the disk;
            all trials failed, or no trial had time for an epoch.
        DataError: the dataset can't be read, or the earlier search used another dataset.
    """
    arguments = SearchArguments(
        dataset,
        spaces,
        output,
        trials,
        time_budget,
        storage,
        max_concurrent,
        resume,
        overrides,
        objective,
        sampler,
        scheduler,
        workers_per_trial,
        cpus_per_trial,
        gpus_per_trial,
        confirm,
        loggers,
    )
    return search(check_request(arguments), fit)


def search(request: SearchRequest, train: TrainFunction, measure: Measure = measure_where_tight) -> TuneResult:
    """Run a checked search with the given training function; ``tune`` passes ``fit``."""
    data = TrainingData.load(request.dataset)
    # A new search is planned before anything is written, because the plan may be refused.
    plan = None if request.resume else preflight(request, data, request.trials, measure)
    for note in request.strategy.notes():
        say(note)
    with claimed(request.run.place, request.resume) as output:
        folder = SearchFolder(output)
        storage = request.storage or folder.database
        with folder.locked(request.resume), translate_database_errors(storage):
            study = _open_study(request, folder, storage)
            record_start(folder.path)
            folder.keep_best(study)
            try:
                left = request.trials - study.counted()
                if left > 0:
                    plan = plan or preflight(request, data, left, measure)
                    say(summary(plan))
                    run_trials(
                        study,
                        request.trials,
                        data,
                        train,
                        plan.allocation,
                        folder,
                        folder.trials,
                        partial(folder.keep_best, study),
                        request.time_budget,
                        request.loggers,
                    )
            finally:
                write_table(study, folder.table)
                _write_page(folder, study, storage)
                output.save()
            best = folder.finish(study)
            found = _confirm(request, data, study, folder, storage, train) if request.confirm else []
        made = output.file(folder.best.name), output.file(folder.best_config.name)
        return TuneResult(best, *made, study.records(), found)


def _open_study(request: SearchRequest, folder: SearchFolder, storage: str) -> Study:
    fingerprint = request.dataset.info.fingerprint
    if not request.resume:
        name = folder.new_study_name()
        study = Study.create(name, storage, request.spaces, fingerprint, request.strategy)
        folder.begin(name)
        return study
    name, _ = folder.study_names()
    study = Study.resume(name, storage, request.spaces, fingerprint, request.strategy)
    if interrupted := study.interrupt_running():
        say(f"{amount(interrupted, 'trial')} of the previous call, interrupted, will be resumed.")
    return study


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
            run_trials(runs, trials, data, train, allocation, folder, folder.confirm, folder.output.save)
    finally:
        for record in runs.records():
            if record.state == "COMPLETE":
                folder.confirm.within(record.folder).within("last").clear()
        write_table(runs, folder.confirm_table)
        _write_page(folder, study, storage)
        folder.ray.clear()
        folder.output.save()
    return confirmed(study, runs)


def _write_page(folder: SearchFolder, study: Study, storage: str) -> None:
    _, name = folder.study_names()
    runs = Study.read(name, storage) if name else None
    section = search_section(folder.path, folder.path, study, confirmed(study, runs))
    write_whole(folder.page, render_page("Search", [section]))


_Storage = Annotated[
    str | None, typer.Option(envvar=STORAGE_VARIABLE, help="Database URL of the study; default OUTPUT/study.db.")
]
_Objective = Annotated[
    str, typer.Option(help="accuracy, macro_f1, or several separated by commas, such as accuracy,images_per_s.")
]
_Scheduler = Annotated[
    str | None, typer.Option(help="asha, hyperband, median or none; default asha, none with several objectives.")
]
_Workers = Annotated[
    int, typer.Option(help="Processes that train one trial together; more than 1 take about 20 s longer to start.")
]
_Cpus = Annotated[
    int | None, typer.Option(help="CPUs of all workers of a trial; default: an equal part of the cluster.")
]
_Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs of all workers of a trial, such as 0.25; default: one per worker if there are enough."),
]
_Confirm = Annotated[
    bool, typer.Option("--confirm", help="Afterwards train the best three configurations with three new seeds each.")
]
_Log = Annotated[
    str | None, typer.Option(help="tensorboard, mlflow, or both separated by a comma: log trials while they run.")
]


def command(
    dataset: Annotated[str, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    space: Annotated[list[str], typer.Option(help="YAML search space; repeat it to choose among architectures.")],
    trials: Annotated[int, typer.Option(help="Number of finished trials in the study at the end.")],
    output: Annotated[str, typer.Option(help="Folder of the search; new, or an earlier one with --resume.")],
    time_budget: Annotated[str | None, typer.Option(help="Stop after this time, such as 90s, 30m or 2h.")] = None,
    storage: _Storage = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at once; default: one per GPU or core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a search, or add trials to it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change every space: path.to.field=value.")] = None,
    objective: _Objective = "accuracy",
    sampler: Annotated[str, typer.Option(help="Optuna sampler: tpe, gp, cmaes, random or qmc.")] = "tpe",
    scheduler: _Scheduler = None,
    workers_per_trial: _Workers = 1,
    cpus_per_trial: _Cpus = None,
    gpus_per_trial: _Gpus = None,
    confirm: _Confirm = False,
    log: _Log = None,
) -> None:
    """Search hyperparameters and architectures for the best validation score."""
    arguments = SearchArguments(
        dataset,
        space,
        output,
        trials,
        time_budget,
        storage,
        max_concurrent,
        resume,
        set_ or [],
        objective,
        sampler,
        scheduler,
        workers_per_trial,
        cpus_per_trial,
        gpus_per_trial,
        confirm,
        log.split(",") if log else [],
    )
    request = check_request(arguments)
    if dry_run:
        plan = preflight(request, TrainingData.load(request.dataset), trials, measure_costs)
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
    for sentence in confirmation_sentences(result.confirmed, request.strategy.first) if request.confirm else ():
        print(sentence)


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["tune", *sys.argv[1:]])
