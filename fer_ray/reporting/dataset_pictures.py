"""Draw the pictures beside a prepared dataset: its classes, some faces and its flaws; describe it as plain text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_ray.dataset.assemble import Spool, SpooledRows, mean_by_class
from fer_ray.dataset.quality import CopyGroup, Findings, worst_groups
from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS

_DPI = 110


def class_distribution(counts: Mapping[str, Mapping[str, int]], file: Path) -> None:
    """Draw the number of images of each class in each split as bars.

    Args:
        counts: split to class to images; the same classes in each split.
        file: the PNG to write.
    """
    names = list(next(iter(counts.values())))
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(counts)
    for number, (split, of_class) in enumerate(counts.items()):
        offset = (number - (len(counts) - 1) / 2) * width
        label = f"{split} ({sum(of_class.values()):,})"
        bars = axes.bar(np.arange(len(names)) + offset, list(of_class.values()), width, label=label)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel("images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    figure.legend(frameon=False, ncols=len(counts), loc="outside upper right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=_DPI)


def sample_grid(images: Mapping[str, np.ndarray], columns: int, file: Path, title: str = "") -> None:
    """Draw some images of each class, one row for each class.

    Args:
        images: class to images, uint8, n × H × W, 0 ≤ n ≤ ``columns``.
        columns: images in a row.
        file: the PNG to write.
        title: line at the top.
    """
    figure = Figure(figsize=(0.8 * columns + 1, 0.8 * len(images) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, (name, pictures) in zip(grid, images.items(), strict=True):
        for number, axes in enumerate(row):
            axes.set_axis_off()
            if number < len(pictures):
                axes.imshow(pictures[number], cmap="gray", vmin=0, vmax=255)
        row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    figure.savefig(file, dpi=_DPI)


def mean_faces(means: Mapping[str, np.ndarray], counts: Mapping[str, int], file: Path, title: str = "") -> None:
    """Draw the mean image of each class in a row, all on the same grey scale.

    Args:
        means: class to mean image, H × W, 0 to 255, at least one.
        counts: class to the number of images that the mean is over.
        file: the PNG to write.
        title: line at the top.
    """
    figure = Figure(figsize=(1.3 * len(means), 2.0), layout="constrained")
    figure.suptitle(title, fontsize=10)
    # A mean has little contrast, so the grey scale runs from the darkest to the lightest pixel of all means.
    low, high = min(mean.min() for mean in means.values()), max(mean.max() for mean in means.values())
    for axes, (name, mean) in zip(figure.subplots(1, len(means), squeeze=False)[0], means.items(), strict=True):
        axes.set_axis_off()
        axes.imshow(mean, cmap="gray", vmin=low, vmax=high)
        axes.set_title(f"{name}\n{counts[name]:,}", fontsize=9)
    figure.savefig(file, dpi=_DPI)


_KINDS = {
    "duplicates": "exact copies of\nan earlier image",
    "leaked": "exact copies of\na train image",
    "conflicts": "same image with\nanother label",
    "flat": "one flat colour",
    "near_duplicates": "nearly equal to\nan earlier image",
    "near_leaked": "nearly equal to\na train image",
}
_COLUMNS = 4  # of duplicate_groups


@dataclass(frozen=True)
class PicturedGroup:
    """Identical images.

    Attributes:
        picture: uint8, size × size.
        splits: split to number of copies in it.
        labels: label to number of copies with it.
    """

    picture: np.ndarray
    splits: Mapping[str, int]
    labels: Mapping[str, int]


def quality_chart(splits: Mapping[str, SplitInfo], file: Path) -> None:
    """Draw the flawed images of each split as bars, with numbers and shares of the split.

    Args:
        splits: name to description.
        file: the PNG to write.
    """
    kinds = [kind for kind in _KINDS if any(getattr(held, kind) is not None for held in splits.values())]
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(kinds) * (len(splits) + 0.6)), layout="constrained")
    axes = figure.subplots()
    height = 0.85 / len(splits)
    for number, (name, held) in enumerate(splits.items()):
        # Copies of train are counted in the other splits only.
        rows = [(at, getattr(held, kind)) for at, kind in enumerate(kinds) if name != "train" or "leaked" not in kind]
        at = np.array([number for number, _ in rows]) + (number - (len(splits) - 1) / 2) * height
        shares = [100 * count / held.rows for _, count in rows]
        bars = axes.barh(at, shares, height, label=f"{name} ({held.rows:,} images)")
        texts = [_amount(count, share) for (_, count), share in zip(rows, shares, strict=True)]
        axes.bar_label(bars, texts, padding=3, fontsize=8)
    axes.set_yticks(np.arange(len(kinds)), [_KINDS[kind] for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.0, axes.get_xlim()[1]) * 1.15)  # room for the numbers
    axes.set_xlabel("% of the split's images")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, ncols=len(splits), loc="outside upper right")
    figure.savefig(file, dpi=_DPI)


def _amount(count: int, share: float) -> str:
    percent = f"{share:.1f}%" if share >= 0.1 else f"{share:.1g}%"
    return f"{count:,} ({percent})" if count else "0"


def duplicate_groups(panels: Mapping[str, Sequence[PicturedGroup]], file: Path) -> None:
    """Draw groups of identical images, each with its number of copies, splits and labels.

    Args:
        panels: title to groups, at least one group in all; a panel without groups is omitted.
        file: the PNG to write.
    """
    panels = {title: groups for title, groups in panels.items() if groups}
    lines = [-(-len(groups) // _COLUMNS) for groups in panels.values()]
    figure = Figure(figsize=(10.5, 1.25 * sum(lines) + 0.45 * len(lines)), layout="constrained")
    parts = figure.subfigures(len(panels), 1, height_ratios=[1.25 * line + 0.45 for line in lines], squeeze=False)
    for part, (title, groups), line in zip(parts[:, 0], panels.items(), lines, strict=True):
        part.suptitle(title, fontsize=10, x=0.01, ha="left")
        cells = part.subplots(line, _COLUMNS, squeeze=False).reshape(-1)
        for axes in cells:
            axes.set_axis_off()
        for axes, group in zip(cells, groups, strict=False):
            _draw_group(axes, group)
    figure.savefig(file, dpi=_DPI)


def _draw_group(axes: Axes, group: PicturedGroup) -> None:
    axes.imshow(group.picture, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 0, 1))
    axes.set(xlim=(0, 2.3), ylim=(0, 1))
    text = [
        f"{sum(group.splits.values()):,} times",
        *(f"{count:,} in {split}" for split, count in group.splits.items()),
        *(f"{label} × {count:,}" for label, count in group.labels.items()),
    ]
    axes.text(1.06, 1, "\n".join(text), va="top", fontsize=7.5, linespacing=1.15)


_SAMPLES = 10  # a class, in samples.png
_GROUPS = 8  # a panel, in duplicates.png


def draw_dataset(folder: Path, info: DatasetInfo, spool: Spool, rows: SpooledRows, findings: Findings) -> None:
    """Write ``classes.png``, ``samples.png`` and ``quality.png``.

    Write ``mean_faces.png`` too if any image has a label, and ``duplicates.png`` if two images have the same pixels.
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
        title = f"mean of each class in {split}, all with the same contrast"
        mean_faces(means, info.splits[split].labels, folder / "mean_faces.png", title)
    _draw_copies(folder / "duplicates.png", spool, rows, findings)


def _draw_copies(file: Path, spool: Spool, rows: SpooledRows, findings: Findings) -> None:
    largest, mixed = worst_groups(rows, findings, _GROUPS)
    if not largest:
        return

    def pictured(groups: Sequence[CopyGroup]) -> list[PicturedGroup]:
        pictures = spool.pixels(np.array([group.first for group in groups], np.int64))
        return [PicturedGroup(p, group.splits, group.labels) for p, group in zip(pictures, groups, strict=True)]

    panels = {"Most copies": pictured(largest), "Copies with the most labels": pictured(mixed)}
    duplicate_groups(panels, file)


def describe_dataset(path_or_url: str, info: DatasetInfo) -> str:
    """Describe a dataset as plain text; ``path_or_url`` is where it is."""
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
        f"{info.rejected:,} rejected{dropped} (reasons in rejects.parquet)",
        f"exact duplicates {sum(held.duplicates for held in totals):,}, with different labels"
        f" {sum(held.conflicts for held in totals):,}, of one flat colour {sum(held.flat for held in totals):,}",
        *([f"{sum(near):,} nearly equal to an earlier image"] if near else []),
    ]
    for split, held in info.splits.items():
        if split != "train":
            nearly = (
                "" if held.near_leaked is None else f", {held.near_leaked:,} more nearly equal to an image of train"
            )
            lines.append(f"{split}: {held.leaked:,} also in train{nearly}")
    return "\n".join([*lines, f"Dataset: {path_or_url}"])
