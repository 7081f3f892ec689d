"""What speaks against a dataset's figures, drawn: how many rows of each split, and the copies themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_ray.data.store import SplitInfo

_DPI = 110
_KINDS = {
    "duplicates": "exact copies of\nan earlier image",
    "leaked": "exact copies of\na train image",
    "conflicts": "same image under\nanother label",
    "flat": "one flat colour",
    "near_duplicates": "nearly equal to\nan earlier image",
    "near_leaked": "nearly equal to\na train image",
}
_COLUMNS = 4  # of duplicate_groups


@dataclass(frozen=True)
class PicturedGroup:
    """Copies of one picture.

    Attributes:
        picture: uint8, size × size.
        splits: how many copies stand in each split.
        labels: how many have each label.
    """

    picture: np.ndarray
    splits: Mapping[str, int]
    labels: Mapping[str, int]


def quality_chart(splits: Mapping[str, SplitInfo], file: Path) -> None:
    """Draw the flawed rows of each split, as numbers and as shares of the split.

    Args:
        splits: by name.
        file: the PNG to write.
    """
    kinds = [kind for kind in _KINDS if any(getattr(held, kind) is not None for held in splits.values())]
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(kinds) * (len(splits) + 0.6)), layout="constrained")
    axes = figure.subplots()
    height = 0.85 / len(splits)
    for number, (name, held) in enumerate(splits.items()):
        # Nothing of train is a copy of train, so that a bar of its own would only say so.
        rows = [(at, getattr(held, kind)) for at, kind in enumerate(kinds) if name != "train" or "leaked" not in kind]
        at = np.array([place for place, _ in rows]) + (number - (len(splits) - 1) / 2) * height
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
    """Draw groups of identical images, each with its picture, number of copies, splits and labels.

    Args:
        panels: title to groups, at least one; a panel without any is left out.
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
