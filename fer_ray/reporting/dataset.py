"""The pictures of a prepared dataset: its classes, some of its faces, and its flaws."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_ray.data.assemble import Rows, Spool, mean_by_class
from fer_ray.data.quality import CopyGroup, Findings, worst_groups
from fer_ray.data.store import DatasetInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.reporting.flaws import PicturedGroup, duplicate_groups, quality_chart
from fer_ray.reporting.plots import class_distribution, mean_faces, sample_grid

_SAMPLES = 10  # a class, in samples.png
_GROUPS = 8  # a panel, in duplicates.png


def draw_dataset(folder: Path, info: DatasetInfo, spool: Spool, rows: Rows, findings: Findings) -> None:
    """Write classes.png, samples.png, quality.png, mean_faces.png where a row is labelled, and duplicates.png where
    two rows have the same pixels.
    """
    class_distribution({split: held.labels for split, held in info.splits.items()}, folder / "classes.png")
    quality_chart(info.splits, folder / "quality.png")
    split = next(iter(info.splits))
    numbers = rows.of_split(split)
    images = {}
    for label, name in enumerate(EMOTIONS):
        of_class = numbers[rows.labels[numbers] == label]
        chosen = np.linspace(0, len(of_class) - 1, min(_SAMPLES, len(of_class))).astype(int)
        images[name] = spool.pixels(of_class[chosen])
    sample_grid(images, _SAMPLES, folder / "samples.png", title=f"{split}, {info.size} × {info.size}")
    means = mean_by_class(spool, rows, numbers)
    if means:
        title = f"mean of each class in {split}, contrast stretched alike"
        mean_faces(means, info.splits[split].labels, folder / "mean_faces.png", title)
    _draw_copies(folder / "duplicates.png", spool, rows, findings)


def _draw_copies(file: Path, spool: Spool, rows: Rows, findings: Findings) -> None:
    largest, mixed = worst_groups(rows, findings, _GROUPS)
    if not largest:
        return

    def pictured(groups: Sequence[CopyGroup]) -> list[PicturedGroup]:
        pictures = spool.pixels(np.array([group.first for group in groups], np.int64))
        return [PicturedGroup(p, group.splits, group.labels) for p, group in zip(pictures, groups, strict=True)]

    panels = {"Most copies": pictured(largest), "Copies under most labels": pictured(mixed)}
    duplicate_groups(panels, file)


def describe_dataset(folder: str, info: DatasetInfo) -> str:
    """Return what a dataset holds as plain text; ``folder`` is where it is."""
    lines = [f"{'':12}{'rows':>10}" + "".join(f"{name:>10}" for name in info.label_names)]
    for split, held in info.splits.items():
        counts = "".join(f"{count:>10,}" for count in held.labels.values())
        lines.append(f"{split:12}{held.rows:>10,}{counts}")
        if held.unlabelled:
            lines[-1] += f"  ({held.unlabelled:,} unlabelled)"
    totals = info.splits.values()
    dropped = f", {info.dropped_leaks:,} of them by --drop-leaks" if info.dropped_leaks else ""
    near = [held.near_duplicates for held in totals if held.near_duplicates is not None]
    lines += [
        "",
        f"{info.rejected:,} rejected{dropped} (rejects.parquet says why)",
        f"exact duplicates {sum(held.duplicates for held in totals):,}, under two labels"
        f" {sum(held.conflicts for held in totals):,}, of one flat colour {sum(held.flat for held in totals):,}",
        *([f"{sum(near):,} nearly equal to an earlier image"] if near else []),
    ]
    for split, held in info.splits.items():
        if split != "train":
            nearly = "" if held.near_leaked is None else f", {held.near_leaked:,} more nearly equal to one of it"
            lines.append(f"{split}: {held.leaked:,} also in train{nearly}")
    return "\n".join([*lines, f"Dataset: {folder}"])
