"""One self-contained HTML page from sections of tables, figures and labelled faces."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fer_ray.version import VERSION

_NUMBER = re.compile(r"[-+−]?[\d.,]+(e[-+]?\d+)?%?( \([\d.]+–[\d.]+%\))?")


@dataclass(frozen=True)
class Table:
    """Rows under a caption; the first column names the row. Cells that hold numbers are set to the right.

    Without column names there is no head.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A picture. A chart is drawn on white, and its colours are turned over where the page is dark."""

    png: bytes
    alt: str
    caption: str = ""
    is_chart: bool = True
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Charts:
    """Small figures under a caption, side by side where the page is wide enough."""

    caption: str
    figures: Sequence[Figure]
    note: str = ""
    kind: str = field(default="charts", init=False)


@dataclass(frozen=True)
class GalleryFace:
    """A face: the picture as PNG, the true name or None, the predicted one, and the prediction's probability."""

    png: bytes
    true: str | None
    predicted: str
    confidence: float

    @property
    def is_correct(self) -> bool:
        """Whether prediction and label agree."""
        return self.true == self.predicted


@dataclass(frozen=True)
class Gallery:
    """Faces with their labels, under a caption."""

    caption: str
    faces: Sequence[GalleryFace]
    note: str = ""
    kind: str = field(default="gallery", init=False)


@dataclass(frozen=True)
class Code:
    """Text as it stands in a file, folded away under its caption unless ``is_open``."""

    caption: str
    text: str
    is_open: bool = False
    kind: str = field(default="code", init=False)


PageBlock = Table | Figure | Charts | Gallery | Code


@dataclass(frozen=True)
class PageSection:
    """What one folder holds, or how several compare.

    Attributes:
        name: the folder's name.
        what: its kind, such as "Training run".
        path: the whole path; empty for a comparison.
        headline: the one figure a reader looks for, a short sentence.
        blocks: what follows.
        notes: sentences that a reader of the figures must know.
    """

    name: str
    what: str
    path: str
    headline: str
    blocks: Sequence[PageBlock]
    notes: Sequence[str] = ()


def render_page(title: str, sections: Sequence[PageSection]) -> str:
    """Return the page. It needs no network and no scripts; all text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("fer_ray.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.tests["numeric"] = _is_numeric
    page: str = environment.get_template("report.html.j2").render(title=title, sections=sections, version=VERSION)
    return page


def read_figure(file: Path, alt: str, caption: str = "", is_chart: bool = True) -> list[Figure]:
    """Return a PNG file as a figure in a list, or an empty list where there is no such file."""
    return [Figure(file.read_bytes(), alt, caption, is_chart)] if file.is_file() else []


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _is_numeric(cell: str) -> bool:
    return cell == "–" or _NUMBER.fullmatch(cell) is not None
