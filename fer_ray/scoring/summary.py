"""The results of a scoring job: ``summary.json``, ``summary.html``, and a few lines of text."""

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.console.progress import say
from fer_ray.console.text import amount, duration, per_time
from fer_ray.emotions import EMOTIONS
from fer_ray.images.decode import png_of
from fer_ray.scoring.job import Speed
from fer_ray.scoring.parts import OutputPart
from fer_ray.scoring.totals import Sample, Totals, thumbnails
from fer_ray.storage.output import Output
from fer_ray.storage.provenance import PROVENANCE_FILE

FORMAT_VERSION = 2
SUMMARY_FILE, PAGE_FILE, SAMPLES_FILE = "summary.json", "summary.html", "_samples.parquet"
REMEDIES = {
    "listing": "few .tar, .zip or Parquet files instead of many single ones",
    "reading": "faster storage, or .tar or .zip files instead of single ones",
    "decoding": "more CPU cores, or smaller images",
    "predicting": "a GPU or more CPU cores, fewer views (--tta none), or a smaller network",
    "writing": "an output on faster storage",
}
"""By stage, what makes a job faster that spends most time there."""
_OF_A_RUN = ("scored_in_this_run", "seconds", "seconds_from_first_batch", "stages")
_SAMPLES_SCHEMA = pa.schema(
    [
        ("group", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("png", pa.binary()),
    ]
)
_PACKAGES = ("fer_ray", "ray", "torch", "opencv-python-headless", "pillow")


def summarise(totals: Totals, speed: Speed, seconds: float, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of ``summary.json``.

    Args:
        totals: over all rows.
        speed: of this run.
        seconds: of the whole run.
        facts: options and identity of the job.
    """
    scored = totals.label.total()
    stages = {"listing": speed.listing_s} | {stage: spent / speed.threads for stage, spent in vars(speed.spent).items()}
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
        "scored_in_this_run": speed.files,
        "seconds": seconds,
        "seconds_from_first_batch": speed.seconds,
        "stages": {
            stage: {"seconds": spent, "images_per_s": speed.files / spent if spent else None}
            for stage, spent in stages.items()
        },
        **facts,
        "versions": {name: version(name) for name in _PACKAGES},
    }


def write_summary(
    folder: Output,
    summary: dict[str, Any],
    totals: Totals,
    layout: Sequence[OutputPart],
    render: Callable[[Path], str],
) -> None:
    """Write ``summary.json``, the pictures and the page. Where nothing was scored, the previous run's speed is kept.

    Args:
        summary: as ``summarise`` returned it; changed in that case.
        render: returns the page of a local folder that holds the other files.
    """
    if not summary["scored_in_this_run"] and folder.exists(SUMMARY_FILE):
        say("No input was left to score; the speed below is that of the previous run.")
        previous = json.loads(folder.read(SUMMARY_FILE))
        summary |= {name: previous[name] for name in _OF_A_RUN}
    folder.write(SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    with tempfile.TemporaryDirectory(prefix="fer_ray-") as temporary:
        local = Path(temporary)
        for name in (SUMMARY_FILE, PROVENANCE_FILE):
            if folder.exists(name):
                (local / name).write_bytes(folder.read(name))
        _write_samples(local / SAMPLES_FILE, folder, totals, layout)
        folder.write(SAMPLES_FILE, (local / SAMPLES_FILE).read_bytes())
        folder.write(PAGE_FILE, render(local))


def where_time_went(summary: dict[str, Any]) -> str:
    """Return which stage took most of the time, and what makes it faster."""
    seconds = {stage: of["seconds"] for stage, of in summary["stages"].items()}
    binding = max(seconds, key=lambda stage: seconds[stage])
    if summary["seconds"] - summary["seconds_from_first_batch"] - seconds["listing"] > seconds[binding]:
        return "Most of the time went to starting Ray and the network, which takes no longer for millions of inputs."
    return f"Most of the time went to {binding}; faster with {REMEDIES[binding]}."


def describe(output: str, summary: dict[str, Any]) -> str:
    """Return the summary as a few lines of text."""
    bad = {status: count for status, count in summary["by_status"].items() if status != "ok"}
    others = "; ".join(f"{count:,} {status}" for status, count in bad.items())
    shares = ", ".join(f"{name} {of['share']:.1%}" for name, of in summary["by_label"].items())
    lines = [
        f"{amount(summary['files'], 'input')}, {summary['failed']:,} failed{': ' if others else ''}{others}",
        f"labels: {shares}",
    ]
    scored, seconds = summary["scored_in_this_run"], summary["seconds"]
    if scored:
        from_first = scored / summary["seconds_from_first_batch"]
        rates = {name: of["images_per_s"] for name, of in summary["stages"].items() if of["images_per_s"]}
        stages = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        lines += [
            f"{amount(scored, 'input')} in {duration(seconds)}: {per_time(scored / seconds, 'images')},"
            f" {per_time(from_first, 'images')} from the first batch on",
            f"images/s by stage: {stages}. {where_time_went(summary)}",
        ]
    return "\n".join([*lines, f"output: {output}"])


def _write_samples(file: Path, folder: Output, totals: Totals, layout: Sequence[OutputPart]) -> None:
    chosen: list[tuple[str, Sample]] = [
        *(("surest", sample) for sample in totals.surest),
        *(("least sure", sample) for sample in totals.least_sure if sample not in totals.surest),
    ]
    pictures = thumbnails(folder, layout, [sample for _, sample in chosen])
    rows = [
        {"group": group, "path": one.path, "label": one.label, "confidence": one.confidence, "png": png_of(picture)}
        for (group, one), picture in zip(chosen, pictures, strict=True)
        if picture is not None
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SAMPLES_SCHEMA), file)
