"""Show training runs on a page, and compare several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from fer_ray.config.files import load_config
from fer_ray.console.text import duration
from fer_ray.errors import DataError
from fer_ray.inference.checkpoint import read_info
from fer_ray.inference.scores import wilson_interval
from fer_ray.models import can_grow
from fer_ray.reporting.curves import accuracy_figure, curve_figures
from fer_ray.reporting.html import Charts, Code, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import machine_of, reproduce_blocks
from fer_ray.training.metrics import Metrics
from fer_ray.training.profile import PHASES, bottleneck
from fer_ray.training.run_folder import RunFolder, best_epoch

_EPOCH_COLUMNS = (
    "Epoch",
    "Learning rate",
    "Train loss",
    "Validation loss",
    "Train accuracy",
    "Accuracy",
    "Macro-F1",
    "Images/s",
)
_RUN_COLUMNS = (
    "Run",
    "Architecture",
    "Best accuracy",
    "95% interval",
    "Macro-F1",
    "Best epoch",
    "Epochs",
    "Time",
    "Images/s",
    "Machine",
)


def run_section(folder: Path, output: Path) -> PageSection:
    """Show a training run; arguments as in ``evaluation_section``."""
    run = RunFolder(folder)
    history = _history(run)
    best, config = best_epoch(history), load_config(run.config_file)
    rows = [
        (
            f"{line['epoch']:.0f}" + (" (best)" if line is best else ""),
            f"{line['learning_rate']:.3g}",
            f"{line['train_loss']:.3f}",
            f"{line['validation_loss']:.3f}",
            f"{line['train_accuracy']:.2%}",
            f"{line['validation_accuracy']:.2%}",
            f"{line['validation_macro_f1']:.3f}",
            f"{line['images_per_s']:,.0f}",
        )
        for line in history
    ]
    note = (
        "Accuracy and macro-F1 are of the validation split. Train loss and train accuracy are means over the epoch, on"
        " augmented images."
    )
    blocks: list[PageBlock] = [
        Charts("Curves", curve_figures(history)),
        Table("Epochs", _EPOCH_COLUMNS, rows, note),
        *_profile_blocks(run),
        *reproduce_blocks(folder, {"Architecture": config.model.name, "Seed": str(config.training.seed)}),
        Code("Configuration (config.yaml)", run.config_file.read_text(encoding="utf-8")),
    ]
    headline = (
        f"{best['validation_accuracy']:.2%} validation accuracy, macro-F1 {best['validation_macro_f1']:.3f}, in epoch"
        f" {best['epoch']:.0f} of {len(history)}; {duration(_seconds(history))}."
    )
    return PageSection(output.name, "Training run", str(output), headline, blocks)


def _profile_blocks(run: RunFolder) -> list[PageBlock]:
    profile = run.profile()
    if profile is None:  # trials of a search have none
        return []
    rows = [
        (part.capitalize(), what, duration(profile.seconds.get(part, 0.0)), f"{share:.1%}")
        for (part, what), share in zip(PHASES.items(), profile.shares().values(), strict=True)
    ]
    note = bottleneck(profile, can_grow(load_config(run.config_file)))
    if profile.workers > 1:
        note += f" Measured on the first of {profile.workers} workers."
    return [Table("Where the time went", ("Part", "Description", "Time", "Share"), rows, note)]


def compare_runs(folders: Mapping[str, Path]) -> PageSection:
    """Compare training runs, the best first.

    Args:
        folders: name on the page to folder, at least two.
    """
    histories = {name: _history(RunFolder(folder)) for name, folder in folders.items()}
    names = sorted(histories, key=lambda name: -best_epoch(histories[name])["validation_accuracy"])
    rows = [_compared(name, folders[name], histories[name]) for name in names]
    best, last = (best_epoch(histories[name])["validation_accuracy"] for name in (names[0], names[-1]))
    note = (
        "Best accuracy is the highest validation accuracy of all epochs, so it is slightly optimistic. Macro-F1 is of"
        " the same epoch. The 95% interval (Wilson) accounts for the choice of validation images, not for the choice of"
        " seed. Time is the sum of all epochs; images/s is the median training speed."
    )
    blocks: list[PageBlock] = [
        Table("Runs by best validation accuracy", _RUN_COLUMNS, rows, note),
        Charts("Curves", [accuracy_figure(histories)]),
    ]
    headline = f"{len(names)} runs from {last:.2%} to {best:.2%} validation accuracy; the best is {names[0]}."
    datasets = {read_info(RunFolder(folder).best).dataset_fingerprint for folder in folders.values()}
    if len(datasets) > 1:
        headline += f" They were trained on {len(datasets)} different datasets, so their accuracies can't be compared."
    return PageSection("Runs compared", "Comparison", "", headline, blocks)


def _compared(name: str, folder: Path, history: Sequence[Metrics]) -> Sequence[str]:
    best = best_epoch(history)
    rows = int(best["validation_rows"])
    low, high = wilson_interval(round(best["validation_accuracy"] * rows), rows)
    return (
        name,
        load_config(RunFolder(folder).config_file).model.name,
        f"{best['validation_accuracy']:.2%}",
        f"{low:.1%} to {high:.1%}",
        f"{best['validation_macro_f1']:.3f}",
        f"{best['epoch']:.0f}",
        f"{len(history)}",
        duration(_seconds(history)),
        f"{median(line['images_per_s'] for line in history):,.0f}",
        machine_of(folder),
    )


def _history(run: RunFolder) -> list[Metrics]:
    history = run.history()
    if not history:
        raise DataError(f"{run.path}: no epoch has finished. Wait for the first epoch, or train again.")
    return history


def _seconds(history: Sequence[Metrics]) -> float:
    return sum(line["seconds"] for line in history)
