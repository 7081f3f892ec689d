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
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import open_output

_LEFT_OUT = ("last", "part-*", *SPLITS)  # no page shows anything of these folders


@dataclass(frozen=True)
class ReportResult:
    """What was written.

    Attributes:
        page: the HTML page.
        card: the model card; None where no folder is an evaluation.
    """

    page: Path | str
    card: Path | str | None


def report(folders: Sequence[Path | str], output: Path | str, *, title: str = "Report") -> ReportResult:
    """Write ``report.html``, one file that needs no network, with a section a folder in the given order.

    Training runs, and evaluations of the same split, are compared first where there are several. Evaluations also get a
    ``model_card.md``, which takes what it says of the data from the dataset among the folders, or from where the
    evaluation found it.

    Args:
        folders: written by prepare, train, tune, evaluate or score, in any mix.
        output: the folder to make; absent or empty before, whole or absent after.
        title: of the page.

    Raises:
        UsageError: no folders, or an output folder that is in use or in one of them.
        DataError: folders of no known kind, or whose files can't be read; all at once.
    """
    if not folders:
        raise UsageError("no folder to report on. Name what prepare, train, tune, evaluate or score wrote.")
    with open_output(output, inputs=folders) as dest:
        named = {local_copy(one, leave_out=_LEFT_OUT): absolute(one) for one in folders}
        paths = list(named)
        sections, problems = [], list[str]()
        for path, name in named.items():
            try:
                sections.append(folder_section(path, name))
            except FerRayError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        cards = model_cards(paths)
        with dest.whole() as partial:
            page = render_page(title, [*comparison_sections(paths), *sections])
            (partial / "report.html").write_text(page, encoding="utf-8")
            if cards:
                (partial / CARD_FILE).write_text(cards, encoding="utf-8")
    return ReportResult(dest.file("report.html"), dest.file(CARD_FILE) if cards else None)


def command(
    folders: Annotated[list[str], typer.Argument(help="What prepare, train, tune, evaluate or score wrote.")],
    output: Annotated[str, typer.Option(help="The folder to make. It must be absent or empty.")],
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
