"""The section of a report about a scoring job: labels, failures, pictures, speed; it needs no drawing library."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

from fer_ray.console.text import amount, duration, per_time
from fer_ray.errors import DataError
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.scoring.summary import FORMAT_VERSION, SAMPLES_FILE, SUMMARY_FILE, speed_by_stage


def scoring_section(folder: Path, path_or_url: str) -> PageSection:
    """Show a scoring job; arguments as in ``evaluation_section``; ``DataError`` for another format version."""
    summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    if summary.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder / SUMMARY_FILE}: format version {summary.get('format_version')}, expected {FORMAT_VERSION}. Run"
            " `fer-ray score` with --resume to write it again."
        )
    statuses = [(name, f"{count:,}", f"{count / summary['files']:.2%}") for name, count in summary["by_status"].items()]
    note = "Each input has a row, also where it failed."
    blocks: list[PageBlock] = [
        _labels(summary),
        Table("Inputs by status", ("Status", "Inputs", "Share"), statuses, note),
    ]
    if first := summary["first_failures"]:
        rows = [(row["path"].rpartition("/")[2], row["status"], row["error"] or "") for row in first]
        note = f"{len(rows)} of {summary['failed']:,}; the parts have all."
        blocks.append(Table("Inputs that failed", ("Name", "Status", "Why"), rows, note))
    blocks += _galleries(folder / SAMPLES_FILE)
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
    counts = summary["confidence_histogram"]
    unsure = sum(counts[: len(counts) // 2]) / max(sum(counts), 1)
    note = f"{unsure:.0%} of the labels have a probability below 0.5."
    return Table("Labels", ("Label", "Images" if summary["faces"] == "none" else "Faces", "Share"), rows, note)


def _galleries(file: Path) -> list[Gallery]:
    samples = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    faces = [GalleryFace(b64decode(one["png"]), None, one["label"], one["confidence"]) for one in samples]
    half = (len(faces) + 1) // 2
    groups = {"Confident labels": faces[:half], "Unsure labels": faces[half:][::-1]}
    return [Gallery(caption, those) for caption, those in groups.items() if those]


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    scored = summary["scored_in_this_run"]
    return [
        ("Inputs", ", ".join(summary["inputs"])),
        ("TTA", summary["tta"]),
        ("Faces", summary["faces"]),
        ("Precision, batch size", f"{summary['precision']}, {summary['batch_size']}"),
        ("From the first batch on", per_time(scored / max(summary["seconds_from_first_batch"], 1e-9), "images")),
        ("Images/s by stage", speed_by_stage(summary)),
    ]
