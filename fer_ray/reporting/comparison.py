"""Compare several evaluations of the same images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_ray.inference.scores import PREDICTIONS_FILE, Evaluation, Scores, compare_members, read_evaluation
from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.evaluation import pairs_table
from fer_ray.reporting.evaluation_text import accuracy_text
from fer_ray.reporting.html import Charts, Figure, PageBlock, PageSection, Table

_COLUMNS = ("Evaluation", "Networks", "TTA", "Accuracy", "Without copies", "Macro-F1", "ECE", "Images/s")


def compare_evaluations(folders: Mapping[str, Path]) -> list[PageSection]:
    """Compare evaluations of the same split of the same dataset, in one section for each split that has several.

    Args:
        folders: name on the page to folder.
    """
    groups: dict[tuple[str, str], dict[str, Evaluation]] = {}
    for name, folder in folders.items():
        evaluation = read_evaluation(folder)
        groups.setdefault((evaluation.dataset_fingerprint, evaluation.split), {})[name] = evaluation
    return [_section(split, group, folders) for (_, split), group in groups.items() if len(group) > 1]


def _section(split: str, evaluations: dict[str, Evaluation], folders: Mapping[str, Path]) -> PageSection:
    names = sorted(evaluations, key=lambda name: -_main(evaluations[name]).accuracy)
    best, last = (_main(evaluations[name]).accuracy for name in (names[0], names[-1]))
    note = (
        "Each evaluation counts with its main test-time augmentation (TTA). Brackets hold the 95% interval (Wilson)."
        " All evaluations are of the same images, so the table of pairs shows a difference more reliably than the"
        " intervals do."
    )
    blocks: list[PageBlock] = [
        Table(f"Evaluations by accuracy, {split} split", _COLUMNS, [_row(n, evaluations[n]) for n in names], note),
        Charts("Accuracy with 95% intervals", [_intervals(names, evaluations)]),
        *_pairs(names, folders),
    ]
    spread = f"from {last:.2%} to {best:.2%} accuracy; the best is {names[0]}" if last < best else f"all at {best:.2%}"
    headline = f"{len(names)} evaluations of {split} {spread}."
    return PageSection(f"Evaluations of {split} compared", "Comparison", "", headline, blocks)


def _main(evaluation: Evaluation) -> Scores:
    return evaluation.main.official


def _row(name: str, evaluation: Evaluation) -> tuple[str, ...]:
    main = evaluation.main
    clean = main.without_leaked if evaluation.leaked_rows else None
    return (
        name,
        " + ".join(member.architecture for member in evaluation.members),
        evaluation.main_tta,
        accuracy_text(main.official),
        accuracy_text(clean) if clean else "–",
        f"{main.official.macro_f1:.3f}",
        f"{main.official.ece:.3f}",
        f"{main.images_per_s:,.0f}",
    )


def _intervals(names: list[str], evaluations: dict[str, Evaluation]) -> Figure:
    canvas, axes = new_chart(height=1.2 + 0.4 * len(names))
    for number, name in enumerate(reversed(names)):
        scores = _main(evaluations[name])
        ends = [[scores.accuracy - scores.accuracy_low], [scores.accuracy_high - scores.accuracy]]
        axes.errorbar([scores.accuracy], [number], xerr=ends, fmt="o", capsize=4, color="C0")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy")
    alt = f"Accuracy of {', '.join(names)} with 95% intervals; the table above has the values."
    return Figure(to_png(canvas), alt)


def _pairs(names: list[str], folders: Mapping[str, Path]) -> list[Table]:
    """Compare each pair of evaluations; return nothing unless all list the same rows in the same order."""
    tables = [pq.read_table(folders[name] / PREDICTIONS_FILE, columns=["id", "label", "predicted"]) for name in names]
    if not all(table["id"].equals(tables[0]["id"]) for table in tables):
        return []
    labels = tables[0]["label"].to_numpy()
    pairs = compare_members(labels, np.stack([table["predicted"].to_numpy() for table in tables]))
    return [pairs_table("evaluations", names, pairs)]
