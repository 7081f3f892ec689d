"""The section of a report about a scoring job: labels, confidence, failures, speed by stage, pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.ticker import MaxNLocator

from fer_ray.console.text import amount, duration, per_time
from fer_ray.errors import DataError
from fer_ray.reporting.charts import new_chart, to_png
from fer_ray.reporting.html import Charts, Figure, Gallery, GalleryFace, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.scoring.summary import FORMAT_VERSION, SAMPLES_FILE, SUMMARY_FILE, where_time_went

_STAGES = {
    "listing": "finding the inputs, before all else",
    "reading": "bytes from disk, archive or object store",
    "decoding": "to grey pictures; with --faces, detecting faces",
    "predicting": "all views through the network",
    "writing": "rows",
}


def scoring_section(folder: Path, path_or_url: str) -> PageSection:
    """Return the section about a scoring job; arguments as in ``evaluation_section``.

    Raises:
        DataError: its ``summary.json`` has another format version.
    """
    summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    if summary.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder / SUMMARY_FILE}: format version {summary.get('format_version')}, expected {FORMAT_VERSION}. Run"
            " `fer-ray score` with --resume to write it again."
        )
    blocks: list[PageBlock] = [_labels(summary)]
    if summary["rows_with_label"]:
        blocks.append(Charts("Labels and confidence", [_share_chart(summary), _confidence_chart(summary)]))
    blocks += [_statuses(summary), *_failures(summary), _stages(summary), *_galleries(folder / SAMPLES_FILE)]
    blocks.append(Table("Job", (), _facts(summary)))
    blocks += reproduce_blocks(
        folder, {"Checkpoint": ", ".join(summary["checkpoints"]), "Fingerprint": summary["fingerprint"]}
    )
    speed = summary["scored_in_this_run"] / summary["seconds"]
    headline = (
        f"{amount(summary['files'], 'input')}, {summary['failed']:,} failed; {duration(summary['seconds'])},"
        f" {per_time(speed, 'images')}."
    )
    return PageSection(Path(path_or_url).name, "Scoring job", path_or_url, headline, blocks)


def _labels(summary: dict[str, Any]) -> Table:
    rows = [(name, f"{of['rows']:,}", f"{of['share']:.1%}") for name, of in summary["by_label"].items()]
    return Table("Labels", ("Label", "Images" if summary["faces"] == "none" else "Faces", "Share"), rows)


def _share_chart(summary: dict[str, Any]) -> Figure:
    canvas, axes = new_chart()
    shares = {name: 100 * of["share"] for name, of in summary["by_label"].items()}
    bars = axes.barh(list(shares), list(shares.values()))
    axes.bar_label(bars, [f"{share:.1f}%" for share in shares.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("share of the labels, %")
    return Figure(to_png(canvas), "Share of each label; the table above has the figures.", "Labels")


def _confidence_chart(summary: dict[str, Any]) -> Figure:
    counts = np.array(summary["confidence_histogram"])
    canvas, axes = new_chart()
    width = 1 / len(counts)
    axes.bar((np.arange(len(counts)) + 0.5) * width, counts, 0.92 * width)
    axes.set(xlabel="confidence: the label's probability", ylabel="images", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    half = counts[: len(counts) // 2].sum() / counts.sum()
    return Figure(
        to_png(canvas),
        f"Histogram of the labels' probabilities; {half:.0%} of them are below 0.5.",
        f"Confidence; {half:.0%} of the labels have less than 0.5",
    )


def _statuses(summary: dict[str, Any]) -> Table:
    rows = [(status, f"{count:,}", f"{count / summary['files']:.2%}") for status, count in summary["by_status"].items()]
    return Table("Inputs by status", ("Status", "Inputs", "Share"), rows, "Each input has a row, also where it failed.")


def _failures(summary: dict[str, Any]) -> list[Table]:
    first = summary["first_failures"]
    if not first:
        return []
    rows = [(row["path"].rpartition("/")[2], row["status"], row["error"] or "") for row in first]
    which = f"The first {len(rows)} of {summary['failed']:,}" if summary["failed"] > len(rows) else "All of them"
    return [Table("Inputs that failed", ("Name", "Status", "Why"), rows, f"{which}.")]


def _stages(summary: dict[str, Any]) -> Table:
    rows = [
        (name, what, _seconds(of["seconds"]), f"{of['images_per_s']:,.0f}" if of["images_per_s"] else "–")
        for name, what in _STAGES.items()
        for of in (summary["stages"][name],)
    ]
    note = (
        f"Of {amount(summary['scored_in_this_run'], 'input')}; seconds are those of all threads, divided by their"
        f" number. {where_time_went(summary)}"
    )
    return Table("Where the time went", ("Stage", "What it does", "Seconds", "Images/s"), rows, note)


def _seconds(seconds: float) -> str:
    """Return seconds to a tenth, short ones to two digits."""
    return f"{seconds:,.1f}" if seconds >= 1 else f"{seconds:.2g}"


def _galleries(file: Path) -> list[Gallery]:
    rows = pq.read_table(file).to_pylist() if file.is_file() else []
    groups = {"surest": "The most confident labels", "least sure": "The least confident labels"}
    return [
        Gallery(
            caption,
            [GalleryFace(row["png"], None, row["label"], row["confidence"]) for row in rows if row["group"] == group],
        )
        for group, caption in groups.items()
        if any(row["group"] == group for row in rows)
    ]


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    scored = summary["scored_in_this_run"]
    return [
        ("Inputs", ", ".join(summary["inputs"])),
        ("TTA", summary["tta"]),
        ("Faces", summary["faces"]),
        ("Precision, batch size", f"{summary['precision']}, {summary['batch_size']}"),
        ("Speed of the whole run", per_time(scored / summary["seconds"], "images")),
        ("From the first batch on", per_time(scored / max(summary["seconds_from_first_batch"], 1e-9), "images")),
        ("Versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items())),
    ]
