"""A scoring job as a section of a report: labels, what failed and why, and the speed."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.progress import duration
from fer_ray.reporting.html import Block, Section, Table
from fer_ray.reporting.reproduce import reproduce_blocks

SUMMARY_FILE = "summary.json"
_FAILED_SHOWN = 20


def scoring_section(folder: Path, shown_as: Path) -> Section:
    """Show a scoring job; arguments as in ``evaluation_section``."""
    summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    failed = {status: count for status, count in summary["by_status"].items() if status != "ok"}
    labels = [(name, f"{of['files']:,}", f"{of['share']:.1%}") for name, of in summary["by_label"].items()]
    blocks: list[Block] = [Table("Labels", ("Label", "Files", "Share"), labels)]
    if failed:
        rows = [(Path(row["path"]).name, row["status"], row["error"] or "") for row in _failed_rows(folder)]
        total = sum(failed.values())
        which = f"The first {len(rows)} of {total:,}" if total > len(rows) else "All of them"
        note = f"{which}; every file has its row in the Parquet files."
        blocks.append(Table("Files that could not be labelled", ("File", "Status", "Why"), rows, note))
    blocks.append(Table("Job", (), _facts(summary)))
    blocks += reproduce_blocks(folder, {"Checkpoint": summary["checkpoint"], "Fingerprint": summary["fingerprint"]})
    headline = (
        f"{summary['files']:,} files, {sum(failed.values()):,} of them could not be labelled;"
        f" {duration(summary['seconds'])}, {summary['images_per_s']:,.0f} images/s."
    )
    return Section(shown_as.name, "Scoring job", str(shown_as), headline, blocks)


def _failed_rows(folder: Path) -> list[dict[str, Any]]:
    def rows() -> Iterator[dict[str, Any]]:
        for part in sorted(folder.glob("part-*.parquet")):
            table = pq.read_table(part, columns=["path", "status", "error"])
            yield from table.filter(pc.not_equal(table["status"], "ok")).to_pylist()

    return list(islice(rows(), _FAILED_SHOWN))


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return [
        ("Inputs", ", ".join(summary["inputs"])),
        ("TTA", summary["tta"]),
        ("Precision", ", ".join(summary["precision"])),
        ("Images/s, all in all", f"{summary['images_per_s']:,.0f}"),
        ("Images/s, from the first batch on", f"{summary['images_per_s_from_first_batch']:,.0f}"),
        ("Versions", versions),
    ]
