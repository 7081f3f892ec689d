"""The page: no network, no scripts, everything escaped, every picture described; in a browser it fits a phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import Charts, Code, Figure, Gallery, GalleryFace, PageSection, Table, render_page

HOSTILE = "<script>alert('x')</script><img src=http://example.com/x.png onerror=y>\"&.jpg"
LONG = "a-name-without-any-blank-" * 6
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run")
POLICY = r"<meta http-equiv[^>]*>"
PHONE = 360
# A frame as wide as a phone, as the window itself can't be made so narrow. It shows as text what the page measures.
FRAME = f"""<!DOCTYPE html><meta charset="utf-8">
<iframe src="page.html" style="width: {PHONE}px; height: 800px"></iframe>
<pre id="out">nothing</pre>
<script>addEventListener("message", (event) => {{ document.getElementById("out").textContent = event.data; }});</script>
"""
MEASURE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll(".scroll, .wide, pre")].filter((one) => one.scrollWidth > one.clientWidth);
  const lost = wide.filter((one) => one.tabIndex !== 0 || !one.hasAttribute("aria-label"));
  const small = [...document.querySelectorAll(".charts img")].filter((one) => one.getBoundingClientRect().width < 250);
  parent.postMessage(JSON.stringify({page: document.documentElement.scrollWidth, wide: wide.length,
    lost: lost.length, small: small.length}), "*");
});</script></body>"""


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


def page_of(text: str, png: bytes = b"png") -> str:
    """Return a page with every kind of block, in which all texts are the same."""
    wide = Table(text, [text] * 8, [[text, *(["12.34% (10.1–14.2%)"] * 7)]] * 40, note=text)
    blocks = [
        wide,
        Table(text, (), [(text, text)]),
        Charts(text, [Figure(png, text, text)] * 3, text),
        Figure(png, text, text),
        Gallery(text, [GalleryFace(png, None, text, 0.5), GalleryFace(png, text, "happy", 0.5)], text),
        Code(text, text, is_open=True),
        Code(text, text),
    ]
    return render_page(text, [PageSection(text, text, text, text, blocks, [text])] * 2)


def test_hostile_names_stay_text() -> None:
    tags = Tags(page_of(HOSTILE))
    assert {tag for tag, _ in tags.found} == {tag for tag, _ in Tags(page_of("plain")).found}
    assert HOSTILE in tags.text
    markdown = Table("", ["a|b"], [["`*<b>*`\n\\"]]).as_markdown()
    assert markdown == "| a\\|b |\n| --- |\n| \\`\\*\\<b\\>\\*\\` \\\\ |"


def test_page_needs_no_network_and_describes_its_pictures() -> None:
    for tag, attributes in Tags(page_of("plain")).found:
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
            assert attributes["alt"]
        if "href" in attributes:
            assert (attributes["href"] or "").startswith(("#section-", "#content"))


def test_numbers_are_aligned_right_and_hashes_are_not() -> None:
    cells = ["1,234", "1e-05", "70.12% (68.6–71.6%)", "–", "−0.5", "291a8cd0", "2 h 05 min", "", "fast"]
    page = render_page("x", [PageSection("n", "w", "p", "h", [Table("t", ("a", "b"), [("r", c) for c in cells])])])
    assert [cell for cell in cells if f'<td class="number">{cell}</td>' in page] == cells[:5]
    assert Table("t", ("a", "b"), [("r", "1"), ("long", "20")]).as_text() == "a      b\nr      1\nlong  20"


@pytest.mark.slow
def test_fits_a_phone(tmp_path: Path) -> None:
    """Only tables and wide figures are wider than the screen, and those scroll, by keyboard too."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here to show the page in")
    page = (
        re.sub(POLICY, "", page_of(LONG, to_png(new_chart()[0])))
        .replace("<details>", "<details open>")
        .replace("</body>", MEASURE)
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME, encoding="utf-8")
    options = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    command = [CHROMIUM, *options, frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in shown.stderr
    found = re.search(r'<pre id="out">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert measured["page"] <= PHONE
    assert measured["wide"] > 0
    assert measured["lost"] == measured["small"] == 0
