"""Show runs, searches, evaluations, scoring jobs and datasets on one page."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["report", *sys.argv[1:]])

from dataclasses import dataclass
from pathlib import Path

from fer_ray.config.options import ReportOptions
from fer_ray.config.stage_options import stage
from fer_ray.errors import DataError, FerRayError
from fer_ray.reporting.html import render_page
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.reporting.sections import comparison_sections, folder_section, model_cards
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import local_copy
from fer_ray.storage.object_store import absolute
from fer_ray.storage.output import open_output

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
        paths = list(named)
        sections, problems = [], list[str]()
        for path, path_or_url in named.items():
            try:
                sections.append(folder_section(path, path_or_url))
            except FerRayError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        cards = model_cards(paths)
        with dest.whole() as partial:
            page = render_page(options.title, [*comparison_sections(paths), *sections])
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
