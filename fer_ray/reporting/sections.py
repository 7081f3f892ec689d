"""Folders that the stages write, recognised by their files, as sections of a report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fer_ray.data.store import DATASET_FILE, PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.learning.evaluation import METRICS_FILE, PREDICTIONS_FILE
from fer_ray.learning.run_folder import CONFIG_FILE, CURVES_FILE, RunFolder
from fer_ray.learning.run_folder import METRICS_FILE as EPOCHS_FILE
from fer_ray.progress import duration
from fer_ray.reporting.evaluation import evaluation_section
from fer_ray.reporting.html import Block, Code, Section, Table, read_figure
from fer_ray.reporting.scoring import SUMMARY_FILE, scoring_section
from fer_ray.reporting.trials import TRIALS_FILE, search_section


@dataclass(frozen=True)
class Kind:
    """A kind of folder: what it is, the files that tell it, and the function that shows it."""

    name: str
    files: tuple[str, ...]
    show: Callable[[Path, Path], Section]


def folder_section(folder: Path) -> Section:
    """Show what a stage wrote.

    Raises:
        UsageError: the folder is missing, or of no known kind.
        DataError: one of its files is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder. {_EXPECTED}")
    kind = kind_of(folder)
    if kind is None:
        inside = [str(child) for child in sorted(folder.iterdir()) if child.is_dir() and kind_of(child)]
        hint = f" Did you mean the folders in it: {' '.join(inside)}?" if inside else ""
        raise UsageError(f"{folder}: of no known kind. {_EXPECTED}{hint}")
    return kind.show(folder, folder)


def kind_of(folder: Path) -> Kind | None:
    """Return the kind of a folder by its files, None where it is none of the known ones."""
    return next((kind for kind in KINDS if all((folder / file).is_file() for file in kind.files)), None)


def run_section(folder: Path, shown_as: Path) -> Section:
    """Show a training run; arguments as in ``evaluation_section``."""
    run = RunFolder(folder)
    history = run.history()
    if not history:
        raise DataError(f"{folder}: no finished epoch yet. Wait for one, or train again.")
    best = max(history, key=lambda line: line["validation_accuracy"])
    columns = ("Epoch", "Learning rate", "Train loss", "Validation loss", "Accuracy", "Macro-F1", "Images/s")
    rows = [
        (
            f"{line['epoch']:.0f}" + (" (best)" if line is best else ""),
            f"{line['learning_rate']:.3g}",
            f"{line['train_loss']:.3f}",
            f"{line['validation_loss']:.3f}",
            f"{line['validation_accuracy']:.2%}",
            f"{line['validation_macro_f1']:.3f}",
            f"{line['images_per_s']:,.0f}",
        )
        for line in history
    ]
    seconds = sum(line["seconds"] for line in history)
    blocks: list[Block] = [
        *read_figure(folder / CURVES_FILE, "Loss, accuracy and macro-F1 by epoch; the table below has the values."),
        Table("Epochs", columns, rows, "Accuracy and macro-F1 are those of the validation split."),
        Code("Configuration", run.config_file.read_text(encoding="utf-8")),
    ]
    headline = (
        f"{best['validation_accuracy']:.2%} validation accuracy, macro-F1 {best['validation_macro_f1']:.3f}, in epoch"
        f" {best['epoch']:.0f} of {len(history)}; {duration(seconds)}."
    )
    return Section(shown_as.name, "Training run", str(shown_as), headline, blocks)


def dataset_section(folder: Path, shown_as: Path) -> Section:
    """Show a prepared dataset; arguments as in ``evaluation_section``."""
    info = PreparedDataset(folder).info
    columns = ("Split", "Rows", *info.label_names, "Unlabelled", "Duplicates", "Leaked", "Conflicts", "Flat")
    rows = [
        (
            name,
            f"{held.rows:,}",
            *(f"{held.labels.get(label, 0):,}" for label in info.label_names),
            *(f"{n:,}" for n in (held.unlabelled, held.duplicates, held.leaked, held.conflicts, held.flat)),
        )
        for name, held in info.splits.items()
    ]
    note = (
        "Duplicates stand earlier in the dataset with the very same pixels; leaked ones stand in train; conflicts stand"
        " elsewhere under another label; flat images have one colour."
    )
    total = sum(held.rows for held in info.splits.values())
    blocks: list[Block] = [
        Table("Splits", columns, rows, note),
        *read_figure(folder / "classes.png", "Images of each class by split, as in the table above."),
        *read_figure(folder / "samples.png", "Some faces of each class.", is_chart=False),
    ]
    headline = (
        f"{total:,} images of {info.size} × {info.size} from {info.source} ({info.source_format});"
        f" {info.rejected:,} rejected."
    )
    return Section(shown_as.name, "Dataset", str(shown_as), headline, blocks, info.notes)


KINDS = (
    Kind("an evaluation", (METRICS_FILE, PREDICTIONS_FILE), evaluation_section),
    Kind("a search", (TRIALS_FILE,), search_section),
    Kind("a training run", (CONFIG_FILE, EPOCHS_FILE), run_section),
    Kind("a scoring job", (SUMMARY_FILE,), scoring_section),
    Kind("a prepared dataset", (DATASET_FILE,), dataset_section),
)
_EXPECTED = "Expected " + ", or ".join(f"{kind.name} with {' and '.join(kind.files)}" for kind in KINDS) + "."
