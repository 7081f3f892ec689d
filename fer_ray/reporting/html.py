"""Build one self-contained HTML page of tables, figures and labelled faces; tables also as plain text and Markdown."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from fer_ray.version import VERSION

_NUMBER = re.compile(r"[-+−]?[\d.,]+(e[-+]?\d+)?%?( \(([\d.]+–)?[\d.]+%\))?")
_MARKDOWN = re.compile(r"([\\`*\[\]<>|])")


@dataclass(frozen=True)
class Table:
    """A table; without ``columns`` it has no header row. The first column names the row. Numbers are aligned right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kind = "table"

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[str, str]], note: str = "") -> "Table":
        """Make a table of rows that all have the same columns."""
        return cls(caption, list(rows[0]) if rows else (), [list(row.values()) for row in rows], note)

    def numeric(self, column: int) -> bool:
        """Say whether a column holds numbers, as far as its first row shows."""
        return column > 0 and bool(self.columns and self.rows) and is_numeric(self.rows[0][column])

    def as_text(self) -> str:
        """Return the table, without caption and note, for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        right = [self.numeric(column) for column in range(len(widths))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if is_right else cell.ljust(width)
                for cell, width, is_right in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        )

    def as_markdown(self) -> Markup:
        """Return the table, without caption and note, as Markdown."""
        rule = ["---:" if self.numeric(column) else "---" for column in range(len(self.columns))]
        lines = [map(escape_markdown, self.columns), rule, *(map(escape_markdown, row) for row in self.rows)]
        return Markup("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


@dataclass(frozen=True)
class Figure:
    """A picture. A chart is drawn on white; dark mode inverts its colours."""

    png: bytes
    alt: str
    caption: str = ""
    is_chart: bool = True
    kind = "figure"


@dataclass(frozen=True)
class Charts:
    """Small figures under one caption, side by side if the page is wide enough."""

    caption: str
    figures: Sequence[Figure]
    note: str = ""
    kind = "charts"


@dataclass(frozen=True)
class GalleryFace:
    """A face as PNG bytes, its label (None if unknown), the predicted label, which is another, and its probability."""

    png: bytes
    true: str | None
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Gallery:
    """Faces with their labels, under a caption."""

    caption: str
    faces: Sequence[GalleryFace]
    note: str = ""
    kind = "gallery"


@dataclass(frozen=True)
class Code:
    """Preformatted text under a caption; collapsed unless ``is_open``."""

    caption: str
    text: str
    is_open: bool = False
    kind = "code"


PageBlock = Table | Figure | Charts | Gallery | Code


@dataclass(frozen=True)
class PageSection:
    """The contents of one folder, or a comparison of several."""

    name: str
    folder_kind: str  # such as "Training run"
    path: str  # or URL; empty for a comparison
    headline: str  # the most important result in a short sentence
    blocks: Sequence[PageBlock]
    notes: Sequence[str] = ()  # warnings that a reader must know before using the numbers


def render_page(title: str, sections: Sequence[PageSection]) -> str:
    """Return the HTML page. It needs no network and no scripts, and all text is escaped."""
    return load_template("report.html.j2", autoescape=True).render(title=title, sections=sections, version=VERSION)


def load_template(name: str, **options: Any) -> Template:
    """Load a template of this package; ``options`` as in ``jinja2.Environment``."""
    loader = PackageLoader("fer_ray.reporting")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode("ascii")
    environment.tests["numeric"] = is_numeric
    return environment.get_template(name)


def escape_markdown(value: object) -> str:
    """Return a value as text on one line in which nothing is Markdown; ``Markup`` stays as it is."""
    return value if isinstance(value, Markup) else _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def read_figure(file: Path, alt: str, caption: str = "", is_chart: bool = True) -> list[Figure]:
    """Return a list with the PNG file as a figure; an empty list if the file is missing."""
    return [Figure(file.read_bytes(), alt, caption, is_chart)] if file.is_file() else []


def is_numeric(cell: str) -> bool:
    """Say whether a table's cell is a number, with or without its interval or share."""
    return cell == "–" or _NUMBER.fullmatch(cell) is not None
