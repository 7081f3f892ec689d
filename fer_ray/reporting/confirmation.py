"""The best configurations of a search with new seeds: a table, and what they say about the search."""

from collections.abc import Sequence
from itertools import pairwise

from fer_ray.console.text import amount, points
from fer_ray.reporting.html import Table
from fer_ray.search.confirmation import Confirmed, resolution
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric

_NOTE = (
    "The search selected these configurations by the values in the second column, which are therefore optimistic. The"
    " seeds are new and no run is selected; each run counts its best epoch, as trials do. The standard deviation (SD)"
    " is over seeds, not over the choice of validation images, which all runs share. The runs are in confirm/."
)


def confirmation_table(confirmed: Sequence[Confirmed], objective: SearchMetric) -> Table:
    """Compare the runs with new seeds to the values of the search.

    Args:
        confirmed: configurations, best mean first.
        objective: the first one of the search.
    """
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
    return Table(f"Confirmed with new seeds: {objective.label}", columns, rows, _NOTE)


def confirmation_sentences(confirmed: Sequence[Confirmed], objective: SearchMetric) -> list[str]:
    """Say how far the values of the search were too high, whether its order held, and how certain that is."""
    name = objective.name
    measured = [one for one in confirmed if one.values(name)]
    failed = sum(run.state == "FAIL" for one in confirmed for run in one.runs)
    left_out = [f"{amount(failed, 'run')} failed and {'is' if failed == 1 else 'are'} left out."] * bool(failed)
    if not measured:
        return left_out
    by_search = sorted(measured, key=lambda one: (-one.searched(name), one.trial.number))
    sentences = [_optimism(by_search[0], objective)]
    if len(measured) > 1:
        sentences += [_order(measured, by_search, objective), *_certainty(measured, objective)]
    return sentences + left_out


def _optimism(best: Confirmed, objective: SearchMetric) -> str:
    seeds, name = amount(len(best.values(objective.name)), "new seed"), objective.name
    difference = best.searched(name) - best.mean(name)
    off = f"{_gap(difference, objective)} too {'high' if difference > 0 else 'low'}"
    return (
        f"Trial {best.trial.number} had {objective.write(best.searched(name))} in the search and has"
        f" {objective.write(best.mean(name))} on average over {seeds}: the value of the search was"
        f" {'right' if _gap(difference, objective) == _gap(0.0, objective) else off}."
    )


def _order(by_mean: Sequence[Confirmed], by_search: Sequence[Confirmed], objective: SearchMetric) -> str:
    previous = ", ".join(str(one.trial.number) for one in by_search)
    if [one.trial for one in by_mean] == [one.trial for one in by_search]:
        return f"The order of the search held (trials {previous})."
    now = ", ".join(f"{one.trial.number} ({objective.write(one.mean(objective.name))})" for one in by_mean)
    return f"The order of the search did not hold: it was trials {previous}; by the means it is {now}."


def _certainty(by_mean: Sequence[Confirmed], objective: SearchMetric) -> list[str]:
    least = resolution(by_mean, objective.name)
    if least is None:
        return []
    gaps = [first.mean(objective.name) - second.mean(objective.name) for first, second in pairwise(by_mean)]
    which = "some neighbours do" if max(gaps) > least else "no neighbours do"
    return [f"With so few seeds, means must differ by {_gap(least, objective)} to be distinct (95%); {which}."]


def _gap(difference: float, objective: SearchMetric) -> str:
    return points(difference) if objective.name == "accuracy" else f"{abs(difference):.3f}"
