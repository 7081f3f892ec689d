"""Figures, drawn with matplotlib straight to PNG files. Each function stands alone and needs no display."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

_DPI = 110


def class_distribution(counts: Mapping[str, Mapping[str, int]], file: Path) -> None:
    """Draw how many rows of each class every split holds, as bars.

    Args:
        counts: split to class to rows; the same classes in each split.
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
    """Draw some images of each class, a row a class.

    Args:
        images: class to images, uint8, n × H × W, n from 0 to ``columns``.
        columns: images a row.
        file: the PNG to write.
        title: a line above.
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
    """Draw the mean picture of each class in a row, all in the same shades.

    Args:
        means: class to mean picture, H × W, 0 to 255, at least one.
        counts: class to how many pictures it is the mean of.
        file: the PNG to write.
        title: a line above.
    """
    figure = Figure(figsize=(1.3 * len(means), 2.0), layout="constrained")
    figure.suptitle(title, fontsize=10)
    # A mean has little contrast: stretched to the darkest and lightest of all classes, so that they still compare.
    low, high = min(mean.min() for mean in means.values()), max(mean.max() for mean in means.values())
    for axes, (name, mean) in zip(figure.subplots(1, len(means), squeeze=False)[0], means.items(), strict=True):
        axes.set_axis_off()
        axes.imshow(mean, cmap="gray", vmin=low, vmax=high)
        axes.set_title(f"{name}\n{counts[name]:,}", fontsize=9)
    figure.savefig(file, dpi=_DPI)
