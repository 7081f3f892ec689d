"""Search hyperparameters and architectures: Ray Tune runs the trials, an Optuna study chooses and remembers them."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.confirm_on_ray import train_seed_runs
from fer_ray.files import write_whole
from fer_ray.learning.confirmation import Confirmed, describe_runs, read_confirmation, seed_runs, write_confirmation
from fer_ray.learning.loop import fit
from fer_ray.learning.objectives import OBJECTIVES
from fer_ray.learning.rows import TrainingData
from fer_ray.learning.search import SearchRequest, check_request, describe_plan
from fer_ray.learning.search_folder import SearchFolder
from fer_ray.learning.study import Study, TrialRecord
from fer_ray.progress import say
from fer_ray.provenance import record_start
from fer_ray.reporting.confirmation import confirmation_sentences
from fer_ray.reporting.html import render_page
from fer_ray.reporting.trials import search_section
from fer_ray.tune_on_ray import Objective, plan, run_trials


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        best: the complete trial that is best by the first objective.
        checkpoint: its checkpoint folder.
        config_file: its configuration, for ``train --config``.
        trials: all finished trials, by number.
        confirmed: the configurations that were trained again with new seeds, the best mean first.
    """

    best: TrialRecord
    checkpoint: Path
    config_file: Path
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
    confirm: bool = False,
    loggers: Sequence[str] = (),
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
        confirm: train the best three configurations again, with three new seeds each, after the search and beyond its
            time budget. ``confirm/`` keeps their runs and ``confirm.parquet`` their figures; ``best/`` stays the
            search's own.
        loggers: ``tensorboard`` and ``mlflow``, which are shown the trials while they run.

    Raises:
        UsageError: wrong arguments or spaces, all at once; a request that the cluster can't fit; no trial finished.
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
        confirm=confirm,
        loggers=loggers,
    )
    return search(request, fit)


def search(request: SearchRequest, objective: Objective) -> TuneResult:
    """Run a checked search with the given training function; ``tune`` passes ``fit``."""
    folder, data = SearchFolder(request.run), TrainingData.load(request.dataset)
    if not request.resume:
        plan(request, request.trials)  # refuses what doesn't fit before anything is written
    for note in request.strategy.notes():
        say(note)
    study = _open_study(request, folder)
    with folder.locked():
        record_start(folder.path)
        study.fail_interrupted()
        folder.keep_best(study)
        try:
            left = request.trials - study.counted()
            if left > 0:
                run_trials(request, data, study, folder, left, objective)
        finally:
            folder.write_table(study)
        best = folder.finish(study)
        _write_page(folder)
        if request.confirm:
            _confirm(request, data, study, folder)
        confirmed = read_confirmation(folder.path)
        return TuneResult(best, folder.best, folder.best_config, study.records(), confirmed)


def _write_page(folder: SearchFolder) -> None:
    write_whole(folder.page, render_page("Search", [search_section(folder.path, folder.path)]))


def _confirm(request: SearchRequest, data: TrainingData, study: Study, folder: SearchFolder) -> None:
    """Train the best configurations with new seeds, as far as that isn't done, and show them on the page."""
    first, errors = request.strategy.first, dict[str, str]()
    runs = seed_runs(study.records(), first, folder.path / "confirm")
    for run in runs:
        run.begin()
    left = [run for run in runs if not run.folder.closed()]
    try:
        if left:
            share = plan(request, len(left))
            say(describe_runs(runs, left, share.concurrent))
            errors = train_seed_runs(left, data, share, first, folder.ray)
    finally:
        write_confirmation(folder.path, runs, first, errors)
        shutil.rmtree(folder.ray, ignore_errors=True)
        _write_page(folder)


def _open_study(request: SearchRequest, folder: SearchFolder) -> Study:
    name = folder.study_name() if request.resume else folder.new_study_name()
    open_study = Study.load if request.resume else Study.create
    storage = request.storage or folder.database(request.resume)
    study = open_study(name, storage, request.spaces, request.dataset.info.fingerprint, request.strategy)
    folder.begin(name)
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
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="Then train the best three configurations with three new seeds each."),
    ] = False,
    log: Annotated[
        list[str] | None, typer.Option(help="tensorboard or mlflow, or both: shows them the trials as they run.")
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
        confirm=confirm,
        loggers=log or [],
    )
    if dry_run:
        print(describe_plan(request, plan(request, request.trials)))
        return
    result = search(request, fit)
    states = [record.state for record in result.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL"))
    values = zip(request.strategy.objectives, result.best.values or (), strict=True)
    measured = ", ".join(f"{OBJECTIVES[name].label} {OBJECTIVES[name].write(value)}" for name, value in values)
    print(f"best: trial {result.best.number}, {measured}, {result.best.space}")
    print(f"{len(states)} trials ({counts}); checkpoint: {result.checkpoint}; configuration: {result.config_file}")
    for sentence in confirmation_sentences(result.confirmed, request.strategy.first) if confirm else ():
        print(sentence)


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["tune", *sys.argv[1:]])
