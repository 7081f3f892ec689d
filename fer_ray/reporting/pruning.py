"""What pruning saved a search and what failed in it, as tables."""

import re
from collections import defaultdict

from fer_ray.learning.trial_records import error_line
from fer_ray.progress import duration
from fer_ray.reporting.html import Table
from fer_ray.reporting.search_table import Clock, SearchTable, Trial

_NUMBERS_SHOWN = 12


def pruning_tables(table: SearchTable, clock: Clock) -> list[Table]:
    """Show how many trials were pruned and the time that it saved; nothing where none was."""
    pruned = [trial for trial in table.trials if trial["state"] == "PRUNED"]
    if not pruned:
        return []
    trained, planned = (sum(trial[column] for trial in pruned) for column in ("epochs", "planned_epochs"))
    saved, spent = sum(map(seconds_saved, pruned)), sum(trial["seconds"] or 0.0 for trial in table.trials)
    rows = [
        ("Pruned trials", f"{len(pruned):,} of {len(table.trials):,} ({len(pruned) / len(table.trials):.0%})"),
        ("Epochs that they trained", f"{trained:,} of {planned:,} ({trained / planned:.0%})"),
        ("Time in epochs of all trials", duration(spent)),
        ("Time saved, estimated", f"{duration(saved)}: without pruning, {duration(spent + saved)}"),
    ]
    if clock.at_once >= 1:
        running = duration(clock.seconds), f"{clock.at_once:.1f}"
        rows.append(("The search itself", f"{running[0]}, with {running[1]} trials at once in the mean"))
    note = (
        "Saved time is, of each pruned trial, the epochs it didn't train × its own seconds an epoch. It is less where"
        " patience would have ended a trial, more where later epochs have larger images. Trials still running when the"
        " time budget was over count as pruned too. What a pruned trial would have reached is not known."
    )
    return [Table("Pruning", (), rows, note)]


def seconds_saved(trial: Trial) -> float:
    """Estimate the training time that stopping a trial early saved: epochs not trained × its mean seconds an epoch."""
    if not trial["epochs"]:
        return 0.0
    return float((trial["planned_epochs"] - trial["epochs"]) * trial["seconds"] / trial["epochs"])


def failure_tables(table: SearchTable) -> list[Table]:
    """Show the errors of failed trials, those that differ only in numbers together; nothing where none failed."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in table.trials:
        if trial["state"] == "FAIL":
            groups[re.sub(r"\d[\d.,]*", "#", error_line(trial["error"]))].append(trial)
    rows = []
    for group in sorted(groups.values(), key=len, reverse=True):
        numbers = ", ".join(str(trial["number"]) for trial in group[:_NUMBERS_SHOWN])
        more = f" and {len(group) - _NUMBERS_SHOWN} more" if len(group) > _NUMBERS_SHOWN else ""
        rows.append((error_line(group[0]["error"]), f"{len(group)}", numbers + more))
    note = "Errors that differ only in numbers stand together, with the words of the first."
    return [Table("Failed trials", ("Error", "Trials", "Their numbers"), rows, note)] if rows else []
