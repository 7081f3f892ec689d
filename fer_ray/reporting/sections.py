"""Recognise the folders that stages write by their files, and show each as a section of a report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.dataset.store import DATASET_FILE
from fer_ray.errors import DataError
from fer_ray.inference.scores import METRICS_FILE, PREDICTIONS_FILE
from fer_ray.reporting.comparison import compare_evaluations, compare_runs
from fer_ray.reporting.dataset import dataset_section
from fer_ray.reporting.evaluation import evaluation_section
from fer_ray.reporting.html import PageSection
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.reporting.runs import run_section
from fer_ray.reporting.scoring import scoring_section
from fer_ray.reporting.search import read_search_section
from fer_ray.scoring.summary import SUMMARY_FILE
from fer_ray.search.folder import NAME_FILE
from fer_ray.training.run_folder import CONFIG_FILE
from fer_ray.training.run_folder import METRICS_FILE as EPOCHS_FILE

_DAMAGED = (OSError, ValueError, LookupError, TypeError)
"""What readers of damaged JSON, YAML and Parquet raise."""


@dataclass(frozen=True)
class Kind:
    """A kind of folder: its name, the files that identify it, and the function that shows it."""

    name: str
    files: tuple[str, ...]
    show: Callable[[Path, str], PageSection]


def folder_section(folder: Path, path_or_url: str) -> PageSection:
    """Show a folder that a stage wrote.

    Args:
        folder: on this machine.
        path_or_url: of the folder, for the page and messages.

    Raises:
        DataError: the folder is missing or of an unknown kind, or one of its files is missing or damaged.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{path_or_url}: {problem}. {_EXPECTED}")
    kind = kind_of(folder)
    if kind is None:
        incomplete = next((kind for kind in KINDS if (folder / kind.files[0]).is_file()), None)
        if incomplete:
            missing = next(file for file in incomplete.files if not (folder / file).is_file())
            raise DataError(f"{path_or_url}: {incomplete.name}, but its {missing} is missing. Run the stage again.")
        inside = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and kind_of(child)]
        named = " ".join(f"{path_or_url}/{name}" for name in inside)
        hint = f" Did you mean the folders in it: {named}?" if inside else ""
        raise DataError(f"{path_or_url}: contains no output of a stage. {_EXPECTED}{hint}")
    try:
        return kind.show(folder, path_or_url)
    except _DAMAGED as error:
        raise DataError(
            f"{path_or_url}: {kind.name} with {', '.join(kind.files)}, but a file in it is damaged:"
            f" {type(error).__name__}: {error}. Run the stage again."
        ) from error


def model_cards(folders: Sequence[Path]) -> str:
    """Return the model cards of the evaluations among folders, one after another; empty if none."""
    files = [folder / CARD_FILE for folder in folders if kind_of(folder) is EVALUATION]
    return "\n---\n\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


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
    longest = max((len(folder.parts) for folder in folders), default=0)
    names = [[str(Path(*folder.parts[-length:])) for folder in folders] for length in range(1, longest + 1)]
    return next((one for one in names if len(set(one)) == len(set(folders))), [])


def kind_of(folder: Path) -> Kind | None:
    """Return the kind of a folder by its files; None if unknown."""
    return next((kind for kind in KINDS if all((folder / file).is_file() for file in kind.files)), None)


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
