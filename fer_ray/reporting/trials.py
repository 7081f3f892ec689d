"""A search as a section of a report: its trials as a table, and how the best value grew."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_ray.reporting.html import Block, Code, Figure, Section, Table

TRIALS_FILE = "trials.parquet"
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
    blocks: list[Block] = [_table(trials)]
    if any(trial["value"] is not None for trial in trials):
        alt = "Validation accuracy of each trial by its number, and the best so far; the table above has the values."
        blocks.append(Figure(_history(trials), alt))
    if (folder / "best.yaml").is_file():
        blocks.append(Code("Configuration of the best trial", (folder / "best.yaml").read_text(encoding="utf-8")))
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


def _history(trials: list[dict[str, Any]]) -> bytes:
    measured = [trial for trial in trials if trial["value"] is not None]
    figure = Canvas(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, dpi=110, format="png")
    return out.getvalue()
