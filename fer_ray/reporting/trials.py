"""A search as a section of a report: its trials as a table, and how the best value grew."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_ray.config_files import load_config
from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import Block, Charts, Code, Figure, Section, Table
from fer_ray.reporting.importances import MIN_TRIALS, Importances, read_importances
from fer_ray.reporting.reproduce import reproduce_blocks

TRIALS_FILE = "trials.parquet"
_BEST_FILE = "best.yaml"
_FIXED = {
    "number": "Trial",
    "state": "State",
    "value": "Accuracy",
    "macro_f1": "Macro-F1",
    "architecture": "Architecture",
}
_MARKERS = {"COMPLETE": "o", "PRUNED": "v"}


def search_section(folder: Path, shown_as: Path) -> Section:
    """Show a search; arguments as in ``evaluation_section``."""
    trials = pq.read_table(folder / TRIALS_FILE).to_pylist()
    complete = [trial for trial in trials if trial["state"] == "COMPLETE" and trial["value"] is not None]
    best = max(complete, key=lambda trial: trial["value"], default=None)
    headline = f"{_counted(trials)}; none trained to its end."
    if best:
        headline = (
            f"{_counted(trials)}; the best is trial {best['number']}, {best['architecture']}, with {best['value']:.2%}"
            " validation accuracy."
        )
    importances = read_importances(folder)
    blocks: list[Block] = []
    if any(trial["value"] is not None for trial in trials):
        blocks.append(Charts("History", [_history(trials)], _left_out(importances)))
    blocks += [*_spaces(trials), *_importances(importances), _table(trials)]
    facts = {}
    if (folder / _BEST_FILE).is_file():
        facts = {"Seed": str(load_config(folder / _BEST_FILE).training.seed)}
    blocks += reproduce_blocks(folder, facts)
    if facts:
        blocks.append(Code(f"Best configuration ({_BEST_FILE})", (folder / _BEST_FILE).read_text(encoding="utf-8")))
    return Section(shown_as.name, "Search", str(shown_as), headline, blocks)


def _counted(trials: list[dict[str, Any]]) -> str:
    states = [trial["state"] for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(trials)} trials ({counts})" if trials else "No trials"


def _table(trials: list[dict[str, Any]]) -> Table:
    columns = dict(_FIXED)
    if trials:
        # Config paths are the columns with a dot.
        columns |= {path: path.partition(".")[2].replace("_", " ") for path in trials[0] if "." in path}
        columns |= {"epochs": "Epochs", "seconds": "Seconds"}
        if any(trial.get("error") for trial in trials):
            columns["error"] = "Error"
    rows = [[_cell(name, trial.get(name)) for name in columns] for trial in trials]
    note = (
        "Accuracy is that of a trial's best epoch on the validation split, of a pruned trial its last. The best trial"
        " is picked by it, so its own value is a little high. Pruned trials were stopped early, as others were ahead."
    )
    return Table("Trials", list(columns.values()), rows, note)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "" if name == "error" else "–"
    if name == "value":
        return f"{value:.2%}"
    if name == "macro_f1":
        return f"{value:.3f}"
    if name == "seconds":
        return f"{value:,.0f}"
    if name == "error":
        return str(value).splitlines()[-1][:200] if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _history(trials: list[dict[str, Any]]) -> Figure:
    measured = [trial for trial in trials if trial["value"] is not None]
    canvas, axes = new_chart()
    names = sorted({trial["architecture"] for trial in measured})
    for number, name in enumerate(names):
        for state in sorted({trial["state"] for trial in measured}):
            some = [trial for trial in measured if (trial["architecture"], trial["state"]) == (name, state)]
            if some:
                label = name if state == "COMPLETE" else f"{name}, {state.lower()}"
                x, y = [trial["number"] for trial in some], [trial["value"] for trial in some]
                axes.plot(x, y, _MARKERS.get(state, "x"), color=f"C{number}", label=label)
    complete = [trial for trial in measured if trial["state"] == "COMPLETE"]
    best = [max(trial["value"] for trial in complete[: i + 1]) for i in range(len(complete))]
    axes.step(
        [trial["number"] for trial in complete], best, where="post", color="0.4", linewidth=1, label="best so far"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(xlabel="trial", ylabel="validation accuracy")
    axes.legend(frameon=False, fontsize=8)
    alt = "Validation accuracy of each trial by its number, and the best so far; the table of trials has the values."
    return Figure(to_png(canvas), alt, "Accuracy by trial")


def _importances(found: list[Importances]) -> list[Table]:
    rows = [
        (f"{one.space}: {path}" if len(found) > 1 else path, f"{share:.1%}", f"{one.trials:,}")
        for one in found
        for path, share in one.shares.items()
    ]
    if not rows:
        return []
    note = (
        "Share of the variance of validation accuracy that a value explains (fANOVA, Hutter et al. 2014), by a forest"
        " over the complete trials alone; pruned ones don't count."
    )
    return [Table("What mattered", ("Value", "Importance", "Complete trials"), rows, note)]


def _left_out(found: list[Importances]) -> str:
    few = [f"{one.space} has {one.trials:,}" for one in found if one.trials < MIN_TRIALS]
    if not few:
        return ""
    return f"The importance of a value is left out below {MIN_TRIALS} complete trials of its space: {', '.join(few)}."


def _spaces(trials: list[dict[str, Any]]) -> list[Table]:
    """The best of each architecture, where there are several."""
    complete = [trial for trial in trials if trial["state"] == "COMPLETE" and trial["value"] is not None]
    names = sorted({trial["architecture"] for trial in trials})
    if len(names) < 2:
        return []
    rows = []
    for name in names:
        own = [trial for trial in complete if trial["architecture"] == name]
        best = max(own, key=lambda trial: trial["value"], default=None)
        tried = sum(trial["architecture"] == name for trial in trials)
        rows.append(
            (name, *((f"{best['value']:.2%}", str(best["number"])) if best else ("–", "–")), f"{len(own)}", f"{tried}")
        )
    return [Table("By architecture", ("Architecture", "Best accuracy", "Trial", "Complete trials", "Trials"), rows)]
