"""The results of a scoring job: ``summary.json``, ``summary.html``, and a few lines of text."""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from fer_ray.console.text import amount, duration, per_time
from fer_ray.emotions import EMOTIONS
from fer_ray.scoring.columns import BOX
from fer_ray.scoring.job import ScoringJob
from fer_ray.scoring.parts import read_part, written_chunks
from fer_ray.scoring.totals import Totals
from fer_ray.storage.output import Output
from fer_ray.storage.provenance import PROVENANCE_FILE

FORMAT_VERSION = 2
SUMMARY_FILE, PAGE_FILE, SAMPLES_FILE = "summary.json", "summary.html", "_samples.json"
REMEDIES = {
    "listing": "few .tar, .zip or Parquet files instead of many single ones",
    "reading": "faster storage, or .tar or .zip files instead of single ones",
    "decoding": "more CPU cores, or smaller images",
    "predicting": "a GPU or more CPU cores, fewer views (--tta none), or a smaller network",
    "writing": "an output on faster storage",
}
"""By stage, what makes a job faster that spends most time there."""
_OF_A_RUN = ("scored_in_this_run", "seconds", "seconds_from_first_batch", "stages")
_OF_THE_JOB = ("checkpoints", "tta", "faces", "precision", "batch_size", "inputs", "fingerprint")


def summarise(job: ScoringJob, totals: Totals, files: int, began: float) -> dict[str, Any]:
    """Return the contents of ``summary.json``, with the totals over all rows, at the end of a run.

    ``files`` are the inputs scored in this run, ``began`` is when it began: seconds since the epoch.
    """
    scored, now = totals.label.total(), time.time()
    return {
        "format_version": FORMAT_VERSION,
        "files": totals.files,
        "failed": totals.failed,
        "by_status": dict(totals.status.most_common()),
        "rows_with_label": scored,
        "by_label": {
            name: {"rows": totals.label[name], "share": totals.label[name] / max(scored, 1)} for name in EMOTIONS
        },
        "confidence_histogram": totals.confidence.tolist(),
        "first_failures": totals.failures,
        "scored_in_this_run": files,
        "seconds": now - began,
        "seconds_from_first_batch": max(now - totals.began, 0.0),
        "stages": {
            stage: {"seconds": spent, "images_per_s": files / spent if spent else None}
            for stage in REMEDIES
            for spent in (totals.seconds[stage],)
        },
        **{name: getattr(job, name) for name in _OF_THE_JOB},
    }


def write_summary(
    folder: Output, summary: dict[str, Any], samples: list[dict[str, Any]], render: Callable[[Path], str]
) -> dict[str, Any]:
    """Write ``summary.json``, samples and page, and return the summary; if nothing was scored, with the previous speed.

    ``render`` returns the page of a local folder that holds the other files.
    """
    if not summary["scored_in_this_run"] and folder.exists(SUMMARY_FILE):
        previous = json.loads(folder.read(SUMMARY_FILE))
        summary = summary | {name: previous[name] for name in _OF_A_RUN}
    folder.write(SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    folder.write(SAMPLES_FILE, json.dumps(samples))
    folder.fetch(SUMMARY_FILE, SAMPLES_FILE, PROVENANCE_FILE)
    folder.write(PAGE_FILE, render(folder.path))
    return summary


def read_samples(folder: Output) -> list[dict[str, Any]]:
    """Return the samples of previous runs of a job."""
    return json.loads(folder.read(SAMPLES_FILE)) if folder.exists(SAMPLES_FILE) else []


def speed_by_stage(summary: dict[str, Any]) -> str:
    """Return images/s by stage, which stage took most of the time, and what makes it faster."""
    rates = {name: of["images_per_s"] for name, of in summary["stages"].items() if of["images_per_s"]}
    seconds = {name: of["seconds"] for name, of in summary["stages"].items()}
    binding = max(seconds, key=lambda name: seconds[name])
    most = f"{binding}; faster with {REMEDIES[binding]}"
    if summary["seconds"] - summary["seconds_from_first_batch"] - seconds["listing"] > seconds[binding]:
        most = "starting, which takes no longer for millions of inputs"
    return f"{', '.join(f'{name} {rate:,.0f}' for name, rate in rates.items())}. Most of the time went to {most}."


def describe(output: str, summary: dict[str, Any]) -> str:
    """Return the summary as a few lines of text, with the speed of a run that scored something."""
    others = "; ".join(f"{count:,} {status}" for status, count in summary["by_status"].items() if status != "ok")
    shares = ", ".join(f"{name} {of['share']:.1%}" for name, of in summary["by_label"].items())
    lines = [
        f"{amount(summary['files'], 'input')}, {summary['failed']:,} failed{': ' if others else ''}{others}",
        f"labels: {shares}",
    ]
    if summary["failed"]:
        lines.append("finished rows stay: to score repaired inputs again, choose a new --output")
    scored, seconds = summary["scored_in_this_run"], summary["seconds"]
    if scored:
        from_first = scored / summary["seconds_from_first_batch"]
        lines += [
            f"{amount(scored, 'input')} in {duration(seconds)}: {per_time(scored / seconds, 'images')},"
            f" {per_time(from_first, 'images')} from the first batch on",
            f"images/s by stage: {speed_by_stage(summary)}",
        ]
    else:
        lines.append("no input was left to score")
    return "\n".join([*lines, f"output: {output}"])


def print_rows(folder: Output, format: str, as_csv: bool) -> None:
    """Print the rows of a job on the output stream: all columns as CSV, or the important ones as a table."""
    rows = pa.concat_tables([read_part(folder, chunk, format) for chunk in written_chunks(folder, format)])
    content = io.BytesIO()
    if as_csv:
        pa_csv.write_csv(rows, content)
    else:
        content.write("".join(f"{line}\n" for line in _as_lines(rows.to_pylist())).encode())
    try:
        print(content.getvalue().decode(), end="", flush=True)
    except BrokenPipeError:  # the reader, such as head, has read enough; at exit Python would flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _as_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line a row: name; label, confidence, second guess; the box of its face; or the problem."""
    here = f"{Path.cwd()}/"
    cells = list[tuple[str, str, str]]()
    for row in rows:
        name = "".join(one if one.isprintable() else repr(one)[1:-1] for one in row["path"].removeprefix(here))
        if row["status"] != "ok":
            cells.append((name, row["status"], row["error"] or ""))
            continue
        (_, first), (second_p, second) = sorted(((row[f"p_{name}"], name) for name in EMOTIONS), reverse=True)[:2]
        box = ""
        if row.get("face_x") is not None:
            x, y, width, height = (round(row[side]) for side in BOX)
            box = f"   face {row['face']}: {width} × {height} at {x}, {y}"
        cells.append((name, f"{first} {row['confidence']:.2f}", f"{second} {second_p:.2f}{box}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [f"{name:{widths[0]}}  {first:{widths[1]}}  {second}".rstrip() for name, first, second in cells]
