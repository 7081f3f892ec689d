"""The page: no network, no scripts, everything escaped, every picture described."""

import re
from html.parser import HTMLParser

import pytest

from fer_ray.reporting.html import Code, Figure, Gallery, GalleryFace, PageSection, Table, render_page

HOSTILE = "<script>alert('x')</script><img src=http://example.com/x.png onerror=y>\"&.jpg"


class Tags(HTMLParser):
    """Collects the start tags of a page with their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(text: str) -> Tags:
    blocks = [
        Table(text, ("Name", text), [(text, "1.5"), ("x", text)], note=text),
        Table(text, (), [(text, text)]),
        Figure(b"png", text, text),
        Gallery(text, [GalleryFace(b"png", text, text, 0.5), GalleryFace(b"png", text, "happy", 0.5)], text),
        Code(text, text),
    ]
    return Tags(render_page(text, [PageSection(text, text, text, text, blocks, [text])] * 2))


def test_hostile_names_stay_text() -> None:
    tags = page_of(HOSTILE)
    assert {tag for tag, _ in tags.found} == {tag for tag, _ in page_of("plain").found}
    assert "script" not in {tag for tag, _ in tags.found}
    assert HOSTILE in tags.text


def test_page_needs_no_network_and_describes_its_pictures() -> None:
    for tag, attributes in page_of("plain").found:
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
            assert attributes["alt"]
        if "href" in attributes:
            assert (attributes["href"] or "").startswith(("#section-", "#content"))


def test_numbers_stand_to_the_right_and_hashes_do_not() -> None:
    cells = ["1,234", "1e-05", "70.12% (68.6–71.6%)", "–", "−0.5", "291a8cd0", "2 h 05 min", "", "fast"]
    page = render_page(
        "x", [PageSection("n", "w", "p", "h", [Table("t", ("a", "b"), [("r", cell) for cell in cells])])]
    )
    numeric = [cell for cell in cells if f'<td class="number">{cell}</td>' in page]
    assert numeric == cells[:5]


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(number: int) -> None:
    """At least 4.5:1, as WCAG 2.2 (success criterion 1.4.3) asks of small text."""
    palettes = re.findall(r":root \{(.*?)\}", render_page("x", []), re.DOTALL)
    assert len(palettes) == 2
    colours = dict(re.findall(r"--(\w+): (#\w{6});", palettes[number]))
    for text in ("text", "soft", "accent", "good", "bad"):
        for ground in ("ground", "panel"):
            lights = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, f"{text} on {ground}"


def luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
