"""The page in a real browser: it asks the network for nothing, complains of nothing, and fits a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_up import make_facts

from fer_ray.reporting.curves import curve_figures
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

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to show the page in")

QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
PHONE = 360
LONG = "a-name-without-any-blank-" * 6
# In a frame as wide as a phone; the window itself can't be made so narrow. What it measures it shows as its text.
FRAME = """<!DOCTYPE html><meta charset="utf-8">
<iframe src="page.html" style="width: {width}px; height: 800px"></iframe>
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


@pytest.fixture(scope="module")
def page() -> str:
    history = [
        {
            "epoch": float(epoch),
            "train_loss": 2 / epoch,
            "validation_loss": 2.1 / epoch,
            "train_accuracy": 0.6,
            "validation_accuracy": 0.5,
            "validation_macro_f1": 0.4,
            "learning_rate": 0.1,
        }
        for epoch in range(1, 4)
    ]
    charts = curve_figures(history)
    evaluation = make_facts(np.arange(7), {"none": np.arange(7)}).evaluation
    blocks: list[PageBlock] = [
        Charts("Curves", charts),
        Figure(charts[0].png, "a chart", "A wide chart"),
        Table("Wide", [LONG, *evaluation.label_names], [[LONG, *(["12.34% (10.1–14.2%)"] * 7)]] * 40),
        Gallery("Faces", [GalleryFace(charts[0].png, "happy", "sad", 0.9)] * 4),
        Code("Command", f"fer-ray train --dataset {LONG} --output run", is_open=True),
        Code("Configuration", LONG * 3),
    ]
    return render_page("A page", [PageSection(LONG, "Training run", LONG, f"A run. {LONG}", blocks, [LONG])] * 2)


def chromium(folder: Path, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    profile = f"--user-data-dir={folder / 'profile'}"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *QUIET, profile, *options)
    command = [CHROMIUM, *flags, "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_no_request_and_no_complaint(page: str, tmp_path: Path) -> None:
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    file.write_text(page, encoding="utf-8")
    shown = chromium(tmp_path, file, f"--log-net-log={log}")
    assert "A page" in shown.stdout
    assert "CONSOLE" not in shown.stderr
    assert requests(log) == set()


def test_the_checks_see_requests_and_complaints(page: str, tmp_path: Path) -> None:
    """So that the test before can fail."""
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page)
    bad = '<img src="http://127.0.0.1:9/x.png" alt=""><script>console.error("a complaint")</script></body>'
    file.write_text(without_policy.replace("</body>", bad), encoding="utf-8")
    shown = chromium(tmp_path, file, f"--log-net-log={log}")
    assert "CONSOLE" in shown.stderr
    assert requests(log) == {"http://127.0.0.1:9/x.png"}


def test_fits_a_phone(page: str, tmp_path: Path) -> None:
    """Nothing but tables and wide figures is wider than the screen, and those scroll, by the keyboard too."""
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("<details>", "<details open>")
    (tmp_path / "page.html").write_text(without_policy.replace("</body>", MEASURE), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=PHONE), encoding="utf-8")
    shown = chromium(tmp_path, frame, "--virtual-time-budget=5000")
    found = re.search(r'<pre id="out">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert measured["page"] <= PHONE
    assert measured["wide"] > 0
    assert measured["lost"] == 0
    assert measured["small"] == 0


def requests(log: Path) -> set[str]:
    """Return what the page asked for over the network; what the browser asks for itself has no origin."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    of_page = {params["url"] for params in asked if params["initiator"] != "not an origin"}
    return {url for url in of_page if not url.startswith(("data:", "file:"))}
