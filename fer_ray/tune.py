"""Search hyperparameters and architectures: Ray Tune runs the trials, an Optuna study chooses and remembers them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.files import write_whole
from fer_ray.learning.loop import fit
from fer_ray.learning.objectives import OBJECTIVES
from fer_ray.learning.rows import TrainingData
from fer_ray.learning.search import SearchRequest, check_request
from fer_ray.learning.search_folder import SearchFolder
from fer_ray.learning.search_plan import describe_plan, summary
from fer_ray.learning.study import Study
from fer_ray.learning.trial_epochs import Objective
from fer_ray.learning.trial_records import TrialRecord
from fer_ray.progress import say
from fer_ray.provenance import record_start
from fer_ray.reporting.html import render_page
from fer_ray.reporting.trials import search_section
from fer_ray.runtime import nodes
from fer_ray.tune_on_ray import run_trials
from fer_ray.tune_preflight import Measure, measure_costs, measure_where_tight, preflight


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        best: the complete trial that is best by the first objective.
        checkpoint: its checkpoint folder.
        config_file: its configuration, for ``train --config``.
        trials: all finished trials, by number.
    """

    best: TrialRecord
    checkpoint: Path
    config_file: Path
    trials: list[TrialRecord]


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
) -> TuneResult:
    """Search for the configuration that is best on the validation split, and keep its checkpoint.

    Args:
        dataset: a folder that ``prepare`` wrote, with a validation split.
        spaces: YAML files with a ``search:`` section; with several, the search chooses among them too.
        output: the search's folder; new or empty, or an earlier search's with ``resume``.
        trials: finished trials that the study shall have in the end, those of earlier calls included.
        time_budget: such as ``90s``, ``30m`` or ``2h``; after it no trial starts, and running ones are stopped.
        storage: database URL of the study; None for ``study.db`` in the output folder.
        max_concurrent: trials at once; None for one a GPU or CPU core.
        resume: go on with an earlier search, or add trials to a finished one.
        overrides: ``path.to.field=value`` changes to every space.
        objective: ``accuracy``, ``macro_f1``, or several with commas between, such as ``accuracy,images_per_s``;
            ``best/`` is of the trial best by the first one, and ``trials.parquet`` marks the Pareto front.
        sampler: of Optuna: ``tpe``, ``gp``, ``cmaes``, ``random`` or ``qmc``.
        scheduler: what stops weak trials: ``asha``, ``hyperband``, ``median`` or ``none``. None for ``asha``, or
            ``none`` with several objectives.
        workers_per_trial: processes that train a trial together; above 1 through Ray Train, which takes some 20 s more
            a trial on two cores.
        cpus_per_trial: of all its workers together; None for as many as the trials at once leave each.
        gpus_per_trial: of all its workers together, such as 0.25; None for one a worker where there are any.

    Raises:
        UsageError: wrong arguments or spaces, all at once; a request that the cluster or the disk can't fit; no trial
            finished.
        DataError: the dataset can't be read, or isn't the one that the earlier search used.
    """
    request = check_request(
        dataset,
        spaces,
        output,
        trials,
        time_budget,
        storage,
        max_concurrent,
        resume,
        overrides,
        objective=objective,
        sampler=sampler,
        scheduler=scheduler,
        workers_per_trial=workers_per_trial,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    return search(request, fit)


def search(request: SearchRequest, objective: Objective, measure: Measure = measure_where_tight) -> TuneResult:
    """Run a checked search with the given training function; ``tune`` passes ``fit``."""
    folder, data = SearchFolder(request.run), TrainingData.load(request.dataset)
    # Of a new search before anything is written, as it refuses what doesn't fit.
    plan = None if request.resume else preflight(request, data, request.trials, measure)
    for note in request.strategy.notes():
        say(note)
    study = None if request.resume else _new_study(request, folder)
    with folder.locked():
        study = study or _former_study(request, folder)
        record_start(folder.path)
        folder.keep_best(study)
        try:
            left = request.trials - study.counted()
            if left > 0:
                plan = plan or preflight(request, data, left, measure)
                say(summary(plan))
                run_trials(request, data, study, folder, objective, plan.share)
        finally:
            folder.write_table(study)
        best = folder.finish(study)
        write_whole(folder.page, render_page("Search", [search_section(folder.path, folder.path)]))
        return TuneResult(best, folder.best, folder.best_config, study.records())


def _new_study(request: SearchRequest, folder: SearchFolder) -> Study:
    name, storage = folder.new_study_name(), request.storage or folder.database(resume=False)
    study = Study.create(name, storage, request.spaces, request.dataset.info.fingerprint, request.strategy)
    folder.begin(name)
    return study


def _former_study(request: SearchRequest, folder: SearchFolder) -> Study:
    """Open the study of an earlier call, or a new one that begins with its trials where the spaces have changed."""
    name, storage = folder.study_name(), request.storage or folder.database(resume=True)
    study = Study.load(name, storage, request.dataset.info.fingerprint, request.strategy)
    interrupted = study.fail_interrupted()
    if study.searches(request.spaces):
        if interrupted:
            say(f"{interrupted} trial{'s' * (interrupted > 1)} of the former call, interrupted, will be gone on with.")
        return study
    study = study.with_spaces(folder.new_study_name(), request.spaces)
    folder.begin(study.name)
    counted = [record for record in study.records() if not record.interrupted]
    outside = sum(record.is_outside for record in counted)
    say(
        f"The spaces have changed: {len(counted) - outside} of {len(counted)} earlier trials fit them, and the sampler"
        f" learns from these. The other {outside} stay in {folder.table.name} and compete for {folder.best.name}/."
    )
    return study


def command(
    dataset: Annotated[Path, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    space: Annotated[list[str], typer.Option(help="YAML search space; several to choose among architectures.")],
    trials: Annotated[int, typer.Option(help="Finished trials that the study shall have in the end.")],
    output: Annotated[Path, typer.Option(help="Folder of the search; new, or an earlier one with --resume.")],
    time_budget: Annotated[str | None, typer.Option(help="Stop after so long, such as 90s, 30m or 2h.")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL of the study; default OUTPUT/study.db.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at once; default one a GPU or CPU core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search, or add trials to it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change every space: path.to.field=value.")] = None,
    objective: Annotated[
        str, typer.Option(help="accuracy, macro_f1, or several with commas, such as accuracy,images_per_s.")
    ] = "accuracy",
    sampler: Annotated[str, typer.Option(help="tpe, gp, cmaes, random or qmc, of Optuna.")] = "tpe",
    scheduler: Annotated[
        str | None, typer.Option(help="asha, hyperband, median or none; default asha, none with several objectives.")
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(help="Processes that train a trial together; above 1 some 20 s more a trial to start them.")
    ] = 1,
    cpus_per_trial: Annotated[
        int | None, typer.Option(help="Of all its workers; default what there is, shared.")
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="Of all its workers, such as 0.25; default one a worker, where there are any.")
    ] = None,
) -> None:
    """Search hyperparameters and architectures for what is best on the validation split."""
    request = check_request(
        dataset,
        space,
        output,
        trials,
        time_budget,
        storage,
        max_concurrent,
        resume,
        set_ or [],
        objective=objective,
        sampler=sampler,
        scheduler=scheduler,
        workers_per_trial=workers_per_trial,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    if dry_run:
        plan = preflight(request, TrainingData.load(request.dataset), request.trials, measure_costs)
        print(describe_plan(request, plan, nodes()))
        return
    result = search(request, fit)
    states = [record.state for record in result.trials if not record.interrupted]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL"))
    values = zip(request.strategy.objectives, result.best.values or (), strict=True)
    measured = ", ".join(f"{OBJECTIVES[name].label} {OBJECTIVES[name].write(value)}" for name, value in values)
    print(f"best: trial {result.best.number}, {measured}, {result.best.space}")
    print(f"{len(states)} trials ({counts}); checkpoint: {result.checkpoint}; configuration: {result.config_file}")


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["tune", *sys.argv[1:]])
