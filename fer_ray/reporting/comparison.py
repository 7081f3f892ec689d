"""Compare several training runs, and several evaluations of the same images."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

from fer_ray.config.files import load_config
from fer_ray.console.text import duration
from fer_ray.inference.checkpoint import read_info
from fer_ray.inference.scores import PREDICTIONS_FILE, Evaluation, compare_members, read_evaluation
from fer_ray.reporting.curves import accuracy_figure
from fer_ray.reporting.evaluation_tables import accuracy_text, pairs_table, share_text
from fer_ray.reporting.html import Charts, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import describe_machine
from fer_ray.reporting.runs import read_history
from fer_ray.storage.provenance import read_provenance
from fer_ray.training.run_folder import Metrics, RunFolder, best_epoch


def compare_runs(folders: Mapping[str, Path]) -> PageSection:
    """Compare training runs, the best first.

    Args:
        folders: name on the page to folder, at least two.
    """
    histories = {name: read_history(folder) for name, folder in folders.items()}
    best = {name: best_epoch(history) for name, history in histories.items()}
    names = sorted(best, key=lambda name: -best[name]["validation_accuracy"])
    note = (
        "Best accuracy is the highest validation accuracy of all epochs, so it is slightly optimistic. Macro-F1 is of"
        " the same epoch. The 95% interval (Wilson) accounts for the choice of validation images, not for the choice of"
        " seed. Time is the sum of all epochs; images/s is the median training speed."
    )
    rows = [_run_row(name, folders[name], histories[name], best[name]) for name in names]
    blocks: list[PageBlock] = [
        Table.of("Runs by best validation accuracy", rows, note),
        Charts("Curves", [accuracy_figure(histories)]),
    ]
    highest, lowest = (best[name]["validation_accuracy"] for name in (names[0], names[-1]))
    headline = f"{len(names)} runs from {lowest:.2%} to {highest:.2%} validation accuracy; the best is {names[0]}."
    datasets = {read_info(RunFolder(folder).best).dataset_fingerprint for folder in folders.values()}
    if len(datasets) > 1:
        headline += f" They were trained on {len(datasets)} different datasets, so their accuracies can't be compared."
    return PageSection("Runs compared", "Comparison", "", headline, blocks)


def _run_row(name: str, folder: Path, history: list[Metrics], best: Metrics) -> dict[str, str]:
    rows, provenance = int(best["validation_rows"]), read_provenance(folder)
    return {
        "Run": name,
        "Architecture": load_config(RunFolder(folder).config_file).model.name,
        "Best accuracy": share_text(round(best["validation_accuracy"] * rows), rows),
        "Macro-F1": f"{best['validation_macro_f1']:.3f}",
        "Best epoch": f"{best['epoch']:.0f}",
        "Epochs": f"{len(history)}",
        "Time": duration(sum(line["seconds"] for line in history)),
        "Images/s": f"{median(line['images_per_s'] for line in history):,.0f}",
        "Machine": describe_machine(provenance.starts[-1].hardware) if provenance else "–",
    }


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
    names = sorted(evaluations, key=lambda name: -evaluations[name].main.official.accuracy)
    highest, lowest = (evaluations[name].main.official.accuracy for name in (names[0], names[-1]))
    note = (
        "Each evaluation counts with its main test-time augmentation (TTA). Brackets hold the 95% interval (Wilson)."
        " All evaluations are of the same images, so the table of pairs shows a difference more reliably than the"
        " intervals do."
    )
    rows = [_evaluation_row(name, evaluations[name]) for name in names]
    blocks = [Table.of(f"Evaluations by accuracy, {split} split", rows, note), *_pairs(names, folders)]
    best = f"from {lowest:.2%} to {highest:.2%} accuracy; the best is {names[0]}"
    headline = f"{len(names)} evaluations of {split} {best if lowest < highest else f'all at {highest:.2%}'}."
    return PageSection(f"Evaluations of {split} compared", "Comparison", "", headline, blocks)


def _evaluation_row(name: str, evaluation: Evaluation) -> dict[str, str]:
    main = evaluation.main
    return {
        "Evaluation": name,
        "Networks": " + ".join(member.architecture for member in evaluation.members),
        "TTA": evaluation.main_tta,
        "Accuracy": accuracy_text(main.official),
        "Without copies": accuracy_text(main.without_leaked if evaluation.leaked_rows else None),
        "Macro-F1": f"{main.official.macro_f1:.3f}",
        "ECE": f"{main.official.ece:.3f}",
        "Images/s": f"{main.images_per_s:,.0f}",
    }


def _pairs(names: list[str], folders: Mapping[str, Path]) -> list[Table]:
    """Compare each pair of evaluations; return nothing unless all list the same rows in the same order."""
    tables = [pq.read_table(folders[name] / PREDICTIONS_FILE, columns=["id", "label", "predicted"]) for name in names]
    if not all(table["id"].equals(tables[0]["id"]) for table in tables):
        return []
    labels = tables[0]["label"].to_numpy()
    pairs = compare_members(labels, np.stack([table["predicted"].to_numpy() for table in tables]))
    return [pairs_table("evaluations", names, pairs)]
