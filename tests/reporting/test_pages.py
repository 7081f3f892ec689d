"""The page: no network, no scripts, everything escaped, every picture described; in a browser it fits a phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import (
    Charts,
    Code,
    Figure,
    Gallery,
    GalleryFace,
    PageBlock,
    PageSection,
    Table,
    render_page,
)

HOSTILE = "<script>alert('x')</script><img src=http://example.com/x.png onerror=y>\"&.jpg"
LONG = "a-name-without-any-blank-" * 6
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
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
    blocks: list[PageBlock] = [
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


def test_text_stands_out_from_its_ground() -> None:
    """At least 4.5:1, as WCAG 2.2 (success criterion 1.4.3) demands of small text."""
    light, dark = re.findall(r":root \{(.*?)\}", render_page("x", []), re.DOTALL)
    for palette, text, ground in product((light, dark), ("text", "soft", "accent", "bad"), ("ground", "panel")):
        colours = dict(re.findall(r"--(\w+): (#\w{6});", palette))
        lights = sorted((luminance(colours[text]), luminance(colours[ground])))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, f"{text} on {ground}"


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def chromium(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here to show the page in")
    profile = f"--user-data-dir={file.parent / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, *options, "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.slow
def test_the_browser_sends_no_request_and_logs_no_complaint(tmp_path: Path) -> None:
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    file.write_text(page_of(LONG, to_png(new_chart()[0])), encoding="utf-8")
    shown = chromium(file, f"--log-net-log={log}")
    assert LONG in shown.stdout and "CONSOLE" not in shown.stderr
    # What the browser requests for itself has no origin.
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    urls = {params["url"] for params in requests if params["initiator"] != "not an origin"}
    assert {one for one in urls if not one.startswith(("data:", "file:"))} == set()


@pytest.mark.slow
def test_fits_a_phone(tmp_path: Path) -> None:
    """Only tables and wide figures are wider than the screen, and those scroll, by keyboard too."""
    page = (
        re.sub(POLICY, "", page_of(LONG, to_png(new_chart()[0])))
        .replace("<details>", "<details open>")
        .replace("</body>", MEASURE)
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME, encoding="utf-8")
    shown = chromium(frame, "--virtual-time-budget=5000")
    found = re.search(r'<pre id="out">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert measured["page"] <= PHONE
    assert measured["wide"] > 0
    assert measured["lost"] == measured["small"] == 0
