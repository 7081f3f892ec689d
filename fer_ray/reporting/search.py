"""The section of a search: results, importances, cost and failures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_ray.config.files import load_config
from fer_ray.console.text import amount, duration
from fer_ray.reporting.confirmation import confirmation_blocks, confirmation_sentences
from fer_ray.reporting.html import Charts, Code, PageBlock, PageSection, Table
from fer_ray.reporting.parallel_coordinates import parallel_figures
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.reporting.search_costs import MIN_TRIALS, Importances, failure_tables, importances, pruning_tables
from fer_ray.reporting.search_table import Clock, SearchTable, read_search_table
from fer_ray.reporting.trial_charts import front_figure, importance_figures, slice_figures, time_figure, trial_figure
from fer_ray.search.confirmation import read_confirmation
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric
from fer_ray.search.trial_records import error_line, short

_BEST_FILE = "best.yaml"
_SLICES = (
    "Filled marks are complete trials. Hollow marks are pruned trials, whose value is that of an early epoch. A cross"
    " at the bottom is a failed trial, the star is the best. A sampler mostly tries values that did well, so a"
    " value with few trials may look worse than it is."
)


def search_section(folder: Path, path_or_url: str) -> PageSection:
    """Return the section of a search; arguments as in ``evaluation_section``."""
    table, confirmed = read_search_table(folder), read_confirmation(folder)
    clock, found = Clock(table.trials), importances(table)
    order = [path for one in found for path in one.shares]
    blocks = confirmation_blocks(confirmed, table.objective)
    if table.measured:
        blocks.append(Charts("History", [*time_figure(table, clock), trial_figure(table)], _pauses(clock)))
    blocks += [
        *_front(table),
        *_spaces(table),
        *_what_mattered(found, table.objective),
        *parallel_figures(table, order),
    ]
    if slices := slice_figures(table, order):
        blocks.append(Charts(f"{table.objective.title} by each value", slices, _SLICES))
    blocks += [*pruning_tables(table, clock), *failure_tables(table), *([_trials(table)] if table.trials else [])]
    facts = {}
    if (folder / _BEST_FILE).is_file():
        facts = {"Seed": str(load_config(folder / _BEST_FILE).training.seed)}
    blocks += reproduce_blocks(folder, facts)
    if facts:
        blocks.append(Code(f"Best configuration ({_BEST_FILE})", (folder / _BEST_FILE).read_text(encoding="utf-8")))
    notes = [" ".join(confirmation_sentences(confirmed, table.objective))] if confirmed else []
    return PageSection(Path(path_or_url).name, "Search", path_or_url, _headline(table), blocks, notes)


def _pauses(clock: Clock) -> str:
    if clock.pause < 60:
        return ""
    return f"The time leaves out pauses between calls of the search: {duration(clock.pause)} in all."


def _headline(table: SearchTable) -> str:
    states = [trial["state"] for trial in table.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    counted = f"{amount(len(states), 'trial')} ({counts})" if states else "No trials"
    if table.interrupted:
        then = "more were interrupted and resumed as these" if states else "interrupted, to be resumed"
        counted += f", {table.interrupted} {then}"
    best = table.best
    if best is None and (stopped := table.stopped):
        reached = f"{table.objective.write(stopped[table.objective.name])} {table.objective.label}"
        return (
            f"{counted}; none is complete. The best epoch is in trial {stopped['number']}, {stopped['space']}, with"
            f" {reached}. This trial was stopped after epoch {stopped['epochs']} of {stopped['planned_epochs']}."
        )
    if best is None:
        return f"{counted}; none is complete."
    if len(table.objectives) > 1:
        counted += f", {len(table.front)} of them on the Pareto front"
    reached = f"{table.objective.write(best['value'])} {table.objective.label}"
    return f"{counted}; the best is trial {best['number']}, {best['space']}, with {reached}."


def _trials(table: SearchTable) -> Table:
    columns = {"number": "Trial", "state": "State", "value": table.objective.title}
    columns |= {other.name: other.title for other in _also_measured(table)}
    columns |= {"space": "Space"} | {value.path: value.label for value in table.searched}
    columns |= {"epochs": "Epochs", "planned_epochs": "of", "seconds": "Seconds"}
    if any(trial["error"] for trial in table.trials):
        columns["error"] = "Error"
    rows = [[_cell(name, trial[name], table) for name in columns] for trial in table.ranked()]
    note = (
        f"Best trials first. {table.objective.title} is the value of the best epoch; of a pruned trial, of the last"
        " epoch. The best trial is selected by this value, so its value is slightly optimistic. Pruned trials stopped"
        " early."
    )
    return Table("Trials", list(columns.values()), rows, note)


def _also_measured(table: SearchTable) -> list[SearchMetric]:
    """Return the other metrics that were measured, besides the first objective."""
    others = [one for one in OBJECTIVES.values() if one is not table.objective]
    return [one for one in others if any(trial.get(one.name) is not None for trial in table.trials)]


def _cell(name: str, value: Any, table: SearchTable) -> str:
    if value is None:
        return "" if name == "error" else "–"
    if name == "value":
        return table.objective.write(value)
    if name in OBJECTIVES:
        return OBJECTIVES[name].write(value)
    if name == "seconds":
        return f"{value:,.0f}"
    if name == "error":
        return error_line(value, 80)
    return short(value)


def _what_mattered(found: Sequence[Importances], objective: SearchMetric) -> list[Charts]:
    figures = importance_figures([one for one in found if one.shares])
    few = [f"{one.space} has {one.trials:,}" for one in found if one.trials < MIN_TRIALS]
    notes = []
    if figures:
        notes.append(
            f"Share of the variance of {objective.label} that a parameter explains (fANOVA, Hutter et al. 2014),"
            " estimated by a random forest over the complete trials. Pruned trials don't count."
        )
        conditional = list(dict.fromkeys(path for one in found if one.shares for path in one.conditional))
        if conditional:
            notes.append(f"Left out because only some trials have them: {', '.join(conditional)}.")
    if few:
        notes.append(f"Left out because a space needs {MIN_TRIALS} complete trials: {', '.join(few)}.")
    return [Charts("What mattered", figures, " ".join(notes))] if notes else []


def _front(table: SearchTable) -> list[PageBlock]:
    """Return the Pareto front of several objectives; nothing for one objective."""
    front = table.front
    if not front:
        return []
    columns = ("Trial", *(objective.title for objective in table.objectives), "Space")
    rows = [
        (
            str(trial["number"]),
            table.objective.write(trial["value"]),
            *(objective.write(trial[objective.name]) for objective in table.objectives[1:]),
            trial["space"],
        )
        for trial in front
    ]
    return [Charts("Pareto front", front_figure(table)), Table("Trials of the front", columns, rows)]


def _spaces(table: SearchTable) -> list[Table]:
    """Return the best trial of each space; nothing for one space."""
    if len(table.spaces) < 2:
        return []
    rows = []
    for space in table.spaces:
        own = [trial for trial in table.complete if trial["space"] == space]
        best = max(own, key=lambda trial: trial["value"], default=None)
        tried = [trial for trial in table.trials if trial["space"] == space]
        shown = (table.objective.write(best["value"]), str(best["number"])) if best else ("–", "–")
        spent = sum(trial["seconds"] or 0.0 for trial in tried)
        rows.append((best["value"] if best else 0.0, (space, *shown, f"{len(own)}", f"{len(tried)}", f"{spent:,.0f}")))
    rows.sort(key=lambda row: -row[0])
    columns = ("Space", f"Best {table.objective.label}", "Trial", "Complete trials", "Trials", "Seconds")
    return [Table("By space", columns, [row for _, row in rows])]
