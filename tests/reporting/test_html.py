"""The page: no network, no scripts, everything escaped, every picture described."""

from html.parser import HTMLParser

from fer_ray.reporting.html import Code, Face, Figure, Gallery, Section, Table, render_page

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
        Gallery(text, [Face(b"png", text, text, 0.5), Face(b"png", text, "happy", 0.5)], text),
        Code(text, text),
    ]
    return Tags(render_page(text, [Section(text, text, text, text, blocks, [text])] * 2))


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
    page = render_page("x", [Section("n", "w", "p", "h", [Table("t", ("a", "b"), [("r", cell) for cell in cells])])])
    numeric = [cell for cell in cells if f'<td class="number">{cell}</td>' in page]
    assert numeric == cells[:5]
