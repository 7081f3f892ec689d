"""Show runs, searches, evaluations, scoring jobs and datasets on one page."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["report", *sys.argv[1:]])

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.config.options import ReportOptions
from fer_ray.config.stage_options import stage
from fer_ray.dataset.store import DATASET_FILE
from fer_ray.errors import DataError, FerRayError
from fer_ray.inference.scores import METRICS_FILE, PREDICTIONS_FILE
from fer_ray.reporting.dataset import dataset_section
from fer_ray.reporting.evaluation import compare_evaluations, evaluation_section
from fer_ray.reporting.html import PageSection, render_page
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.reporting.runs import compare_runs, run_section
from fer_ray.reporting.scoring import scoring_section
from fer_ray.reporting.search import read_search_section
from fer_ray.scoring.summary import SUMMARY_FILE
from fer_ray.search.folder import NAME_FILE
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import local_copy
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import open_output
from fer_ray.training.run_folder import CONFIG_FILE
from fer_ray.training.run_folder import METRICS_FILE as EPOCHS_FILE

_LEFT_OUT = ("last", "part-*", *SPLITS)  # pages use no file of these folders
_DAMAGED = (OSError, ValueError, LookupError, TypeError)
"""What readers of damaged JSON, YAML and Parquet raise."""


_EVALUATION, _RUN = "an evaluation", "a training run"
_KINDS: dict[str, tuple[tuple[str, ...], Callable[[Path, str], PageSection]]] = {
    _EVALUATION: ((METRICS_FILE, PREDICTIONS_FILE), evaluation_section),
    "a search": ((NAME_FILE,), read_search_section),
    _RUN: ((CONFIG_FILE, EPOCHS_FILE), run_section),
    "a scoring job": ((SUMMARY_FILE,), scoring_section),
    "a prepared dataset": ((DATASET_FILE,), dataset_section),
}
"""The files that identify a folder of each kind, and the function that shows it."""
_EXPECTED = (
    "Expected " + ", or ".join(f"{kind} with {' and '.join(files)}" for kind, (files, _) in _KINDS.items()) + "."
)


@dataclass(frozen=True)
class ReportResult:
    """The files of a report."""

    page: Path | str
    card: Path | str | None  # the model cards; None if no folder is an evaluation


@stage(ReportOptions)
def report(options: ReportOptions) -> ReportResult:
    """Write ``report.html``, one file that needs no network, with one section for each folder in the given order.

    Comparisons come first: of all training runs, and of the evaluations of the same split. For evaluations the function
    also writes ``model_card.md``.

    Raises:
        UsageError: the output folder is in use or inside one of them.
        DataError: folders that no stage wrote, or whose files can't be read; all problems at once.
    """
    with open_output(options.output, inputs=options.folders) as dest:
        named = {local_copy(folder, leave_out=_LEFT_OUT): absolute(folder) for folder in options.folders}
        sections, problems = list[PageSection](), list[str]()
        for path, path_or_url in named.items():
            try:
                sections.append(_folder_section(path, path_or_url))
            except FerRayError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        files = [folder / CARD_FILE for folder in named if _kind_of(folder) == _EVALUATION]
        cards = "\n---\n\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        with dest.whole() as partial:
            page = render_page(options.title, [*_comparisons(list(named)), *sections])
            (partial / "report.html").write_text(page, encoding="utf-8")
            if cards:
                (partial / CARD_FILE).write_text(cards, encoding="utf-8")
    return ReportResult(dest.file("report.html"), dest.file(CARD_FILE) if cards else None)


def command(options: ReportOptions) -> None:
    """Write the report, and print where it is."""
    result = report.run(options)
    print(f"Report: {result.page}")
    if result.card:
        print(f"Model card: {result.card}")


def _folder_section(folder: Path, path_or_url: str) -> PageSection:
    """Show a folder that a stage wrote; ``path_or_url`` names it on the page and in messages."""
    if not folder.is_dir():
        problem = "is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{path_or_url}: {problem}. {_EXPECTED}")
    kind = _kind_of(folder)
    if kind is None:
        for kind, (files, _) in _KINDS.items():
            if (folder / files[0]).is_file():
                missing = next(file for file in files if not (folder / file).is_file())
                raise DataError(f"{path_or_url}: {kind}, but its {missing} is missing. Run the stage again.")
        inside = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and _kind_of(child)]
        named = " ".join(f"{path_or_url}/{name}" for name in inside)
        hint = f" Did you mean the folders in it: {named}?" if inside else ""
        raise DataError(f"{path_or_url}: contains no output of a stage. {_EXPECTED}{hint}")
    files, show = _KINDS[kind]
    try:
        return show(folder, path_or_url)
    except _DAMAGED as error:
        raise DataError(
            f"{path_or_url}: {kind} with {', '.join(files)}, but a file in it is damaged:"
            f" {type(error).__name__}: {error}. Run the stage again."
        ) from error


def _comparisons(folders: Sequence[Path]) -> list[PageSection]:
    named = dict(zip(_distinct_names(folders), folders, strict=True))
    runs = {name: folder for name, folder in named.items() if _kind_of(folder) == _RUN}
    evaluations = {name: folder for name, folder in named.items() if _kind_of(folder) == _EVALUATION}
    return [*([compare_runs(runs)] if len(runs) > 1 else []), *compare_evaluations(evaluations)]


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return a distinct name for each folder: the last parts of its path, as many as needed."""
    longest = max((len(folder.parts) for folder in folders), default=0)
    names = [[str(Path(*folder.parts[-length:])) for folder in folders] for length in range(1, longest + 1)]
    return next((one for one in names if len(set(one)) == len(set(folders))), [])


def _kind_of(folder: Path) -> str | None:
    return next((kind for kind, (files, _) in _KINDS.items() if all((folder / one).is_file() for one in files)), None)
