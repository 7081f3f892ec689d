"""Show a training run as a section of a page, and compare several."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from fer_ray.config.files import load_config
from fer_ray.console.text import duration
from fer_ray.errors import DataError
from fer_ray.inference.checkpoint import read_info
from fer_ray.models import can_grow
from fer_ray.reporting.curves import accuracy_figure, curve_figures
from fer_ray.reporting.evaluation_tables import share_text
from fer_ray.reporting.html import Charts, Code, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import describe_machine, reproduce_blocks
from fer_ray.storage.provenance import read_provenance
from fer_ray.training.profile import PHASES, bottleneck
from fer_ray.training.run_folder import Metrics, RunFolder, best_epoch


def run_section(folder: Path, path_or_url: str) -> PageSection:
    """Show a training run; arguments as in ``evaluation_section``."""
    run, history = RunFolder(folder), read_history(folder)
    best, config = best_epoch(history), load_config(run.config_file)
    rows = [
        {
            "Epoch": f"{line['epoch']:.0f}" + (" (best)" if line is best else ""),
            "Learning rate": f"{line['learning_rate']:.3g}",
            "Train loss": f"{line['train_loss']:.3f}",
            "Validation loss": f"{line['validation_loss']:.3f}",
            "Train accuracy": f"{line['train_accuracy']:.2%}",
            "Accuracy": f"{line['validation_accuracy']:.2%}",
            "Macro-F1": f"{line['validation_macro_f1']:.3f}",
            "Images/s": f"{line['images_per_s']:,.0f}",
        }
        for line in history
    ]
    note = (
        "Accuracy and macro-F1 are of the validation split. Train loss and train accuracy are means over the epoch, on"
        " augmented images."
    )
    blocks: list[PageBlock] = [
        Charts("Curves", curve_figures(history)),
        Table.of("Epochs", rows, note),
        *_profile_tables(run, can_grow(config)),
        *reproduce_blocks(folder, {"Architecture": config.model.name, "Seed": str(config.training.seed)}),
        Code("Configuration (config.yaml)", run.config_file.read_text(encoding="utf-8")),
    ]
    headline = (
        f"{best['validation_accuracy']:.2%} validation accuracy, macro-F1 {best['validation_macro_f1']:.3f}, in epoch"
        f" {best['epoch']:.0f} of {len(history)}; {duration(sum(line['seconds'] for line in history))}."
    )
    return PageSection(Path(path_or_url).name, "Training run", path_or_url, headline, blocks)


def _profile_tables(run: RunFolder, can_grow: bool) -> list[Table]:
    profile = run.profile()
    if profile is None:  # trials of a search have none
        return []
    rows = [
        (phase.capitalize(), PHASES[phase], duration(profile.seconds.get(phase, 0.0)), f"{share:.1%}")
        for phase, share in profile.shares().items()
    ]
    note = bottleneck(profile, can_grow)
    if profile.workers > 1:
        note += f" Measured on the first of {profile.workers} workers."
    return [Table("Where the time went", ("Part", "Description", "Time", "Share"), rows, note)]


def compare_runs(folders: Mapping[str, Path]) -> PageSection:
    """Compare training runs, the best first; ``folders`` maps names on the page to folders, at least two."""
    histories = {name: read_history(folder) for name, folder in folders.items()}
    best = {name: best_epoch(history) for name, history in histories.items()}
    names = sorted(best, key=lambda name: -best[name]["validation_accuracy"])
    rows = []
    for name in names:
        line, history, provenance = best[name], histories[name], read_provenance(folders[name])
        images = int(line["validation_rows"])
        row = {
            "Run": name,
            "Architecture": load_config(RunFolder(folders[name]).config_file).model.name,
            "Best accuracy": share_text(round(line["validation_accuracy"] * images), images),
            "Macro-F1": f"{line['validation_macro_f1']:.3f}",
            "Best epoch": f"{line['epoch']:.0f}",
            "Epochs": f"{len(history)}",
            "Time": duration(sum(line["seconds"] for line in history)),
            "Images/s": f"{median(line['images_per_s'] for line in history):,.0f}",
            "Machine": describe_machine(provenance.starts[-1].hardware) if provenance else "–",
        }
        rows.append(row)
    note = (
        "Best accuracy is the highest validation accuracy of all epochs, so it is slightly optimistic. Macro-F1 is of"
        " the same epoch. The 95% interval (Wilson) accounts for the choice of validation images, not for the choice of"
        " seed. Time is the sum of all epochs; images/s is the median training speed."
    )
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


def read_history(folder: Path) -> list[Metrics]:
    """Read the epochs of a run; ``DataError`` if none has finished."""
    history = RunFolder(folder).history()
    if not history:
        raise DataError(f"{folder}: no epoch has finished. Wait for the first epoch, or train again.")
    return history
