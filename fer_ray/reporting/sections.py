"""Recognise the folders that stages write by their files, and show each as a section of a report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.errors import DataError
from fer_ray.inference.scores import METRICS_FILE, PREDICTIONS_FILE
from fer_ray.reporting.comparison import compare_evaluations
from fer_ray.reporting.evaluation import evaluation_section
from fer_ray.reporting.html import PageBlock, PageSection, Table, read_figure
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.reporting.runs import compare_runs, run_section
from fer_ray.reporting.scoring import scoring_section
from fer_ray.reporting.search import read_search_section
from fer_ray.scoring.summary import SUMMARY_FILE
from fer_ray.search.folder import NAME_FILE
from fer_ray.training.run_folder import CONFIG_FILE
from fer_ray.training.run_folder import METRICS_FILE as EPOCHS_FILE


@dataclass(frozen=True)
class Kind:
    """A kind of folder: its name, the files that identify it, and the function that shows it."""

    name: str
    files: tuple[str, ...]
    show: Callable[[Path, Path], PageSection]


_NEAR_FLAWS = ("near_duplicates", "near_leaked")
_PICTURES = {
    "classes.png": (
        "Images of each class by split; the table of splits has the numbers.",
        "Images of each class",
        True,
    ),
    "samples.png": ("Some faces of each class.", "Some faces of each class", False),
    "quality.png": ("Flawed images by split; the table of splits has the numbers.", "Data quality", True),
    "mean_faces.png": ("The mean face of each class.", "The mean face of each class", False),
    "duplicates.png": (
        "Images that occur several times in the dataset: the largest groups and those with the most labels.",
        "Images that occur several times",
        False,
    ),
}
"""Optional pictures beside ``dataset.json``: alternative text, caption and whether it is a chart."""


def folder_section(folder: Path) -> PageSection:
    """Show a folder that a stage wrote.

    Raises:
        DataError: the folder is missing or of an unknown kind, or one of its files is missing or damaged.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{folder}: {problem}. {_EXPECTED}")
    kind = kind_of(folder)
    if kind is None:
        incomplete = next((kind for kind in KINDS if (folder / kind.files[0]).is_file()), None)
        if incomplete:
            missing = next(file for file in incomplete.files if not (folder / file).is_file())
            raise DataError(f"{folder}: {incomplete.name}, but its {missing} is missing. Run the stage again.")
        inside = [str(child) for child in sorted(folder.iterdir()) if child.is_dir() and kind_of(child)]
        hint = f" Did you mean the folders in it: {' '.join(inside)}?" if inside else ""
        raise DataError(f"{folder}: contains no output of a stage. {_EXPECTED}{hint}")
    try:
        return kind.show(folder, folder)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
    ) as error:  # raised by readers of damaged JSON, YAML and Parquet
        raise DataError(
            f"{folder}: {kind.name} with {', '.join(kind.files)}, but a file in it is damaged:"
            f" {type(error).__name__}: {error}. Run the stage again."
        ) from error


def comparison_sections(folders: Sequence[Path]) -> list[PageSection]:
    """Compare the training runs among the folders, and the evaluations of the same split.

    Raises:
        DataError: one of their files is damaged.
    """
    named = dict(zip(distinct_names(folders), folders, strict=True))
    runs = {name: folder for name, folder in named.items() if kind_of(folder) is RUN}
    evaluations = {name: folder for name, folder in named.items() if kind_of(folder) is EVALUATION}
    return [*([compare_runs(runs)] if len(runs) > 1 else []), *compare_evaluations(evaluations)]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return a distinct name for each folder: the last parts of its path, as many as needed."""
    most = max((len(folder.parts) for folder in folders), default=0)
    for length in range(1, most + 1):
        names = [str(Path(*folder.parts[-length:])) for folder in folders]
        if len(set(names)) == len(set(folders)):
            return names
    return [str(folder) for folder in folders]


def kind_of(folder: Path) -> Kind | None:
    """Return the kind of a folder by its files; None if unknown."""
    return next((kind for kind in KINDS if all((folder / file).is_file() for file in kind.files)), None)


def dataset_section(folder: Path, output: Path) -> PageSection:
    """Show a prepared dataset; arguments as in ``evaluation_section``."""
    info = PreparedDataset(folder).info
    has_near = any(held.near_duplicates is not None for held in info.splits.values())
    flaws = ("unlabelled", "duplicates", "leaked", "conflicts", "flat", *_NEAR_FLAWS * has_near)
    columns = ("Split", "Rows", *info.label_names, *(flaw.replace("_", " ").capitalize() for flaw in flaws))
    rows = [
        (
            name,
            f"{held.rows:,}",
            *(f"{held.labels.get(label, 0):,}" for label in info.label_names),
            *("–" if (count := getattr(held, flaw)) is None else f"{count:,}" for flaw in flaws),
        )
        for name, held in info.splits.items()
    ]
    note = (
        "Duplicates have exactly the same pixels as an earlier image; leaked images have the same pixels as an image of"
        " train; conflicts have the same pixels as an image with another label; flat images have one colour only."
    )
    if has_near:
        note += " Near duplicates look nearly like an earlier image, near leaked images like an image of train."
    if not any(held.duplicates for held in info.splits.values()):
        note += " No two images have the same pixels."
    total = sum(held.rows for held in info.splits.values())
    pictures = [
        figure
        for name, (alt, caption, is_chart) in _PICTURES.items()
        for figure in read_figure(folder / name, alt, caption, is_chart)
    ]
    made_by = {"Source": f"{info.source} ({info.source_format})", "Fingerprint": info.fingerprint}
    blocks: list[PageBlock] = [Table("Splits", columns, rows, note), *pictures, *reproduce_blocks(folder, made_by)]
    headline = (
        f"{total:,} images of {info.size} × {info.size} from {info.source} ({info.source_format});"
        f" {info.rejected:,} rejected."
    )
    return PageSection(output.name, "Dataset", str(output), headline, blocks, info.notes)


EVALUATION = Kind("an evaluation", (METRICS_FILE, PREDICTIONS_FILE), evaluation_section)
RUN = Kind("a training run", (CONFIG_FILE, EPOCHS_FILE), run_section)
KINDS = (
    EVALUATION,
    Kind("a search", (NAME_FILE,), read_search_section),
    RUN,
    Kind("a scoring job", (SUMMARY_FILE,), scoring_section),
    Kind("a prepared dataset", (DATASET_FILE,), dataset_section),
)
_EXPECTED = "Expected " + ", or ".join(f"{kind.name} with {' and '.join(kind.files)}" for kind in KINDS) + "."
