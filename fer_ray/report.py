"""Show runs, searches, evaluations, scoring jobs and datasets on one page."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.reporting.html import render_page
from fer_ray.reporting.model_card import CARD_FILE, model_cards
from fer_ray.reporting.sections import comparison_sections, folder_section
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import local_copy
from fer_ray.storage.local import whole_folder
from fer_ray.storage.outputs import claimed

_LEFT_OUT = ("last", "part-*", *SPLITS)  # pages use no file of these folders


@dataclass(frozen=True)
class ReportResult:
    """The files of a report.

    Attributes:
        page: the HTML page.
        card: the model cards; None if no folder is an evaluation.
    """

    page: Path | str
    card: Path | str | None


def report(folders: Sequence[Path | str], output: Path | str, *, title: str = "Report") -> ReportResult:
    """Write ``report.html``, one file that needs no network, with one section for each folder in the given order.

    Comparisons come first: of all training runs, and of the evaluations of the same split. For evaluations the function
    also writes ``model_card.md``. The card describes the dataset if it is among the folders, or still where the
    evaluation found it.

    Args:
        folders: written by prepare, train, tune, evaluate or score.
        output: the folder to write; absent or empty before, complete or absent after.
        title: title of the page.

    Raises:
        UsageError: no folders, or the output folder is in use or inside one of them.
        DataError: folders that no stage wrote, or whose files can't be read; all problems at once.
    """
    if not folders:
        raise UsageError("no folder given. Name folders that prepare, train, tune, evaluate or score wrote.")
    with claimed(output, inputs=folders) as dest:
        paths = list(dict.fromkeys(local_copy(str(folder), leave_out=_LEFT_OUT) for folder in folders))
        sections, problems = [], list[str]()
        for path in paths:
            try:
                sections.append(folder_section(path))
            except FerRayError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        cards = model_cards(paths)
        with whole_folder(dest.path) as partial:
            page = render_page(title, [*comparison_sections(paths), *sections])
            (partial / "report.html").write_text(page, encoding="utf-8")
            if cards:
                (partial / CARD_FILE).write_text(cards, encoding="utf-8")
        dest.save()
    return ReportResult(dest.file("report.html"), dest.file(CARD_FILE) if cards else None)


def command(
    folders: Annotated[list[str], typer.Argument(help="Folders that prepare, train, tune, evaluate or score wrote.")],
    output: Annotated[str, typer.Option(help="Folder to write; absent or empty.")],
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Report",
) -> None:
    """Show runs, searches, evaluations, scoring jobs and datasets on one page."""
    result = report(folders, output, title=title)
    print(f"Report: {result.page}")
    if result.card:
        print(f"Model card: {result.card}")


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["report", *sys.argv[1:]])
