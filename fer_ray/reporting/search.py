"""The section of a search: results, importances, failures, and runs with new seeds."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from fer_ray.config.files import load_config
from fer_ray.console.text import amount, points
from fer_ray.reporting.html import Charts, Code, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.reporting.trial_charts import (
    SearchResults,
    front_figure,
    importance_figure,
    label,
    slice_figures,
    trial_figure,
)
from fer_ray.search.confirmation import Confirmed, confirmed, resolution
from fer_ray.search.folder import SearchFolder
from fer_ray.search.parameters import parameter
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric
from fer_ray.search.study import Study
from fer_ray.search.trial_records import error_line, short

MIN_TRIALS = 20
"""Complete trials of a space that importances need; with fewer, the seed of the forest decides them."""
_BEST_FILE = "best.yaml"
_CONFIRMED = (
    "The search selected these configurations by the values in the second column, which are therefore optimistic. The"
    " seeds are new and no run is selected; each run counts its best epoch, as trials do. The standard deviation (SD)"
    " is over seeds, not over the choice of validation images, which all runs share. The runs are in confirm/."
)
_SLICES = (
    "Filled marks are complete trials, hollow ones pruned trials with the value of an early epoch; the star is best."
    " A sampler mostly tries values that did well, so a value with few trials may look worse than it is."
)


def read_search_section(folder: Path, path_or_url: str) -> PageSection:
    """Return the section of a search by its folder; arguments as in ``evaluation_section``.

    ``DataError`` if the folder names no study, ``UsageError`` if the database of the study can't be opened.
    """
    study, runs = SearchFolder(folder).read_studies()
    return search_section(folder, path_or_url, study, confirmed(study, runs))


def search_section(folder: Path, path_or_url: str, study: Study, confirmed: Sequence[Confirmed]) -> PageSection:
    """Return the section of a search by its study and the runs with new seeds."""
    results = SearchResults(study)
    blocks: list[PageBlock] = [confirmation_table(confirmed, results.objective)] if confirmed else []
    blocks += [Charts("History", [trial_figure(results)])] if results.has_values else []
    blocks += [*_front(results), *_spaces(results), *_what_mattered(results)]
    if slices := slice_figures(results):
        blocks.append(Charts(f"{results.objective.title} by each value", slices, _SLICES))
    blocks += [_trials(results)] if results.trials else []
    best, facts = folder / _BEST_FILE, dict[str, str]()
    if best.is_file():
        facts = {"Seed": str(load_config(best).training.seed)}
    blocks += reproduce_blocks(folder, facts)
    if facts:
        blocks.append(Code(f"Best configuration ({_BEST_FILE})", best.read_text(encoding="utf-8")))
    notes = confirmation_notes(confirmed, results.objective)
    return PageSection(Path(path_or_url).name, "Search", path_or_url, _headline(results), blocks, notes)


def _headline(results: SearchResults) -> str:
    states = [trial.state for trial in results.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    counted = f"{amount(len(states), 'trial')} ({counts})" if states else "No trials"
    if interrupted := len(results.study.records()) - len(states):
        then = "more were interrupted and resumed as these" if states else "interrupted, to be resumed"
        counted += f", {interrupted} {then}"
    best = results.study.best()
    if best is None or best.value is None:
        return f"{counted}; none is complete."
    value = f"{results.objective.write(best.value)} {results.objective.label}"
    if best.stopped:
        return (
            f"{counted}; none is complete. The best epoch is in trial {best.number}, {best.space}, with {value}. This"
            f" trial was {best.stopped}."
        )
    if len(results.objectives) > 1:
        counted += f", {len(results.front)} of them on the Pareto front"
    return f"{counted}; the best is trial {best.number}, {best.space}, with {value}."


def _trials(results: SearchResults) -> Table:
    first = results.objective
    others = [one for one in OBJECTIVES.values() if one is not first]
    others = [one for one in others if any(trial.measured(one.name) for trial in results.trials)]
    paths, failed = list(results.searched), any(trial.error for trial in results.trials)
    columns = ["Trial", "State", first.title, *(one.title for one in others), "Space", *map(label, paths)]
    columns += ["Epochs", "of", "Seconds", *["Error"] * failed]
    rows = []
    for trial in results.trials:
        row = [str(trial.number), trial.state, _value(first, trial.value)]
        row += [_value(one, trial.measured(one.name)) for one in others]
        row += [trial.space, *(short(trial.params[path]) if path in trial.params else "–" for path in paths)]
        row += [str(len(trial.by_epoch)), str(trial.epochs), "–" if trial.seconds is None else f"{trial.seconds:,.0f}"]
        rows.append(row + [error_line(trial.error) if trial.error else ""] * failed)
    note = (
        f"Best trials first. {first.title} is the value of the best epoch. The best trial is selected by this value, so"
        " its value is slightly optimistic. Pruned trials stopped early, or were stopped by the time budget; what they"
        " would have reached isn't known."
    )
    return Table("Trials", columns, rows, note)


def _value(objective: SearchMetric, value: float | None) -> str:
    return "–" if value is None else objective.write(value)


def _what_mattered(results: SearchResults) -> list[Charts]:
    if results.study.ranges_changed:
        note = "Left out because --resume changed the ranges, and trials of other ranges can't be compared."
        return [Charts("What mattered", [], note)]
    counts = {space: sum(trial.space == space for trial in results.complete) for space in results.spaces}
    found = {space: importances(results, space) for space, count in counts.items() if count >= MIN_TRIALS}
    figures = [importance_figure(space, counts[space], shares) for space, shares in found.items() if shares]
    few = [f"{space} has {count:,}" for space, count in counts.items() if count < MIN_TRIALS]
    notes = []
    if figures:
        notes.append(
            f"Share of the variance of {results.objective.label} that a parameter explains (fANOVA, Hutter et al."
            " 2014), estimated by a random forest over the complete trials. Pruned trials don't count."
        )
    if few:
        notes.append(f"Left out because a space needs {MIN_TRIALS} complete trials: {', '.join(few)}.")
    return [Charts("What mattered", figures, " ".join(notes))] if notes else []


def importances(results: SearchResults, space: str) -> Mapping[str, float]:
    """Return the share of each config path in the variance of the first objective, the largest first.

    Empty if all complete trials of the space have the same value.
    """
    study = results.study
    if len({trial.value for trial in results.complete if trial.space == space}) == 1:
        return {}
    names = {parameter(path, space, study.spaces): path for path in study.spaces[space].search}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        shares = get_param_importances(
            study.optuna,
            evaluator=FanovaImportanceEvaluator(seed=0),
            params=list(names),
            target=lambda trial: trial.values[0],
        )
    return {names[name]: share for name, share in shares.items()}


def _front(results: SearchResults) -> list[PageBlock]:
    front = results.front
    if not front:
        return []
    rows = [
        {
            "Trial": str(trial.number),
            **{objective.title: _value(objective, trial.measured(objective.name)) for objective in results.objectives},
            "Space": trial.space,
        }
        for trial in front
    ]
    return [Charts("Pareto front", [front_figure(results)]), Table.of("Trials of the front", rows)]


def _spaces(results: SearchResults) -> list[Table]:
    if len(results.spaces) < 2:
        return []
    rows = []
    # Trials are in order of their values, so spaces are in order of their best trials.
    for space in dict.fromkeys(trial.space for trial in results.trials):
        tried = [trial for trial in results.trials if trial.space == space]
        complete = [trial for trial in tried if trial.state == "COMPLETE"]
        row = {
            "Space": space,
            f"Best {results.objective.label}": _value(results.objective, complete[0].value if complete else None),
            "Trial": str(complete[0].number) if complete else "–",
            "Complete trials": f"{len(complete)}",
            "Trials": f"{len(tried)}",
            "Seconds": f"{sum(trial.seconds or 0.0 for trial in tried):,.0f}",
        }
        rows.append(row)
    return [Table.of("By space", rows)]


def confirmation_table(confirmed: Sequence[Confirmed], objective: SearchMetric) -> Table:
    """Compare the runs with new seeds, best mean first, to the values of the search, whose first metric is given."""
    shown = [objective, *(OBJECTIVES[name] for name in ("accuracy", "macro_f1") if name != objective.name)]
    columns = ["Trial", "In the search", "Seeds", "Lowest", "Highest"]
    for one in shown:
        columns += [f"Mean {one.label.removeprefix('validation ')}", "SD, points" if one.name == "accuracy" else "SD"]
    rows = []
    for found in confirmed:
        values = found.values(objective.name)
        ends = [objective.write(min(values)), objective.write(max(values))] if values else ["–", "–"]
        trial = f"{found.trial.number} ({found.trial.space})"
        cells = [trial, objective.write(found.searched(objective.name)), str(len(values)), *ends]
        for one in shown:
            spread = found.spread(one.name)
            deviation = "–" if spread is None else f"{100 * spread:.2f}" if one.name == "accuracy" else f"{spread:.3f}"
            cells += [one.write(found.mean(one.name)) if values else "–", deviation]
        rows.append(cells)
    return Table(f"Confirmed with new seeds: {objective.label}", columns, rows, _CONFIRMED)


def confirmation_notes(confirmed: Sequence[Confirmed], objective: SearchMetric) -> list[str]:
    """Say how far means must differ to be distinct, and how many runs failed; arguments as in the table."""
    name, notes = objective.name, list[str]()
    means = [one.mean(name) for one in confirmed if one.values(name)]
    if len(means) > 1 and (least := resolution(confirmed, name)) is not None:
        gap = points(least) if name == "accuracy" else f"{least:.3f}"
        which = "some" if max(first - second for first, second in pairwise(means)) > least else "no"
        notes.append(f"With so few seeds, means must differ by {gap} to be distinct (95%); {which} neighbours do.")
    if failed := sum(run.state == "FAIL" for one in confirmed for run in one.runs):
        notes.append(f"{amount(failed, 'run')} failed and {'is' if failed == 1 else 'are'} left out.")
    return notes
