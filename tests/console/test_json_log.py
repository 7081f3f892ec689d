"""``--log-json``: every line that Python code writes to the error stream is one object."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from made_up_search import drawn_study

from fer_ray.cli import main
from fer_ray.config import options
from fer_ray.console import progress
from fer_ray.console.json_log import log_as_json
from fer_ray.console.progress import ProgressBar, say
from fer_ray.search.on_ray.run_trials import TrialTable


def events(text: str) -> list[dict[str, Any]]:
    """Parse every line; their times are of now."""
    parsed: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    for event in parsed:
        time = event.pop("time")
        assert time.endswith("Z") and abs((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()) < 600
    return parsed


def test_messages_of_all_kinds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    log_as_json()
    log_as_json()  # once is enough
    monkeypatch.setenv("FORCE_COLOR", "1")
    say("Grüße, 48 × 48\x1b[31m\u2028 postgresql://me:secret@db")
    print("one", 2, file=sys.stderr)
    print("a page\n  of two lines", file=sys.stderr, flush=True)
    warnings.warn("beware", FutureWarning, stacklevel=1)
    handler = logging.StreamHandler()
    handler.handle(logging.LogRecord("ray", logging.WARNING, "f.py", 1, "full: %s", ("disk",), None))
    raw = capsys.readouterr().err
    assert raw.isascii() and raw.replace("\n", "").isprintable() and "secret" not in raw
    message, *printed, warning, logged = events(raw)
    assert message == {"kind": "message", "text": "Grüße, 48 × 48\x1b[31m\u2028 postgresql://me:***@db"}
    assert printed == [{"kind": "output", "text": "one 2"}, {"kind": "output", "text": "a page\n  of two lines"}]
    assert (warning["kind"], warning["text"], warning["category"]) == ("warning", "beware", "FutureWarning")
    assert warning["where"].startswith(__file__)
    assert logged == {"kind": "output", "text": "full: disk"}


def test_progress_as_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    log_as_json()
    monkeypatch.setenv("FORCE_COLOR", "1")  # with which rich takes any stream for a terminal
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    study = drawn_study({"fast": 10, "cnn3": 3})
    for epoch in range(1, 5):
        study.report(0, {"epoch": float(epoch), "validation_accuracy": 0.5, "seconds": 60.0})
    with ProgressBar("searching", 9, "trials", details=TrialTable(study)) as bar:
        now += 59
        bar.advance(1)
        assert capsys.readouterr().err == ""
        now += 1
        bar.advance(2, note="best 50.00%")
        (event,) = events(capsys.readouterr().err)
        assert event.pop("text").startswith("searching: 3/9 trials, 3.0 trials/min, 2 min 00 s left")
        details = event.pop("details")
        names = ("trial", "space", "epoch", "epochs", "last", "best", "seconds_left")
        assert [tuple(trial[name] for name in names) for trial in details] == [
            (0, "fast", 4, 10, 0.5, 0.5, 300.0),
            (1, "cnn3", 0, 3, None, None, None),
        ]
        numbers = {"done": 3, "total": 9, "unit": "trials", "per_s": 0.05, "seconds_left": pytest.approx(120)}
        assert event == {"kind": "progress", "description": "searching", "note": "best 50.00%"} | numbers
    assert capsys.readouterr().err == ""  # the last line printed it all


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "problems"),
    [
        ("--log-json preprae", 2, "UsageError", ["Did you mean 'prepare'"]),
        ("train --dataset d --log-json", 2, "MissingParameter", ["Missing option '--output'"]),
        ("--log-json train --dataset nowhere --output o", 3, "DataError", ["no such folder"]),
        ("train --dataset d --output o --set a=1 --set b --log-json", 2, "UsageError", ["no such", "--set b", "key"]),
    ],
)
def test_errors(arguments: str, code: int, kind: str, problems: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    printed = capsys.readouterr()
    (event,) = events(printed.err)
    assert (event["kind"], event["error"], event["exit_code"], end.value.code) == ("error", kind, code, code)
    assert event["text"] == "\n".join(event["problems"]) and printed.out == ""
    assert all(word in problem for word, problem in zip(problems, event["problems"], strict=True))


@pytest.mark.parametrize("as_json", [False, True])
def test_unexpected_errors(as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def break_down(*arguments: object) -> None:
        raise RuntimeError("mysql://me:secret@db went away")

    monkeypatch.setattr(options, "load_config", break_down)
    with pytest.raises(SystemExit) as end:
        main(["train", "--dataset", "d", "--output", "o", *["--log-json"] * as_json])
    assert end.value.code == 1
    raw = capsys.readouterr().err
    assert "secret" not in raw
    if as_json:
        (event,) = events(raw)
        assert (event["text"], event["error"]) == ("RuntimeError: mysql://me:***@db went away", "RuntimeError")
        raw = event["traceback"]
    assert raw.startswith("Traceback (most recent call last)") and "in break_down" in raw
    assert raw.endswith("RuntimeError: mysql://me:***@db went away\n")
