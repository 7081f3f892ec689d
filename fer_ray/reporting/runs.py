"""Show a training run as a section of a page."""

from collections.abc import Sequence
from pathlib import Path

from fer_ray.config.files import load_config
from fer_ray.console.text import duration
from fer_ray.errors import DataError
from fer_ray.models import can_grow
from fer_ray.reporting.curves import curve_figures
from fer_ray.reporting.html import Charts, Code, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.training.profile import PHASES, bottleneck
from fer_ray.training.run_folder import Metrics, RunFolder, best_epoch

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


def run_section(folder: Path, path_or_url: str) -> PageSection:
    """Show a training run; arguments as in ``evaluation_section``."""
    run = RunFolder(folder)
    history = read_history(run)
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
        f" {best['epoch']:.0f} of {len(history)}; {duration(seconds_of(history))}."
    )
    return PageSection(Path(path_or_url).name, "Training run", path_or_url, headline, blocks)


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


def read_history(run: RunFolder) -> list[Metrics]:
    history = run.history()
    if not history:
        raise DataError(f"{run.path}: no epoch has finished. Wait for the first epoch, or train again.")
    return history


def seconds_of(history: Sequence[Metrics]) -> float:
    """Return the seconds of all epochs together."""
    return sum(line["seconds"] for line in history)
