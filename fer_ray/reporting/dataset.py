"""Show a prepared dataset: as plain text, as a section of a page, and in pictures beside ``dataset.json``."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas

from fer_ray.dataset.assemble import Spool, SpooledRows
from fer_ray.dataset.store import DatasetInfo, PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.reporting.charts import FILE_DPI, new_chart
from fer_ray.reporting.html import PageSection, Table, read_figure
from fer_ray.reporting.reproduce import reproduce_blocks

_FLAWS = {
    "duplicates": "exact copies of an earlier image",
    "leaked": "exact copies of a train image",
    "conflicts": "same image with another label",
    "flat": "one flat colour",
    "near_duplicates": "nearly equal to an earlier image",
    "near_leaked": "nearly equal to a train image",
}
"""Counts of flawed images, fields of ``SplitInfo``, and what they are."""
_SAMPLES = 10  # of each class, in samples.png


def describe_dataset(path_or_url: str, info: DatasetInfo) -> str:
    """Describe a dataset as plain text; ``path_or_url`` is where it is."""
    left_out = f", {info.left_out:,} of them left out by request" if info.left_out else ""
    rejected = f"{info.rejected:,} rejected{left_out} (reasons in rejects.parquet)"
    return f"{split_table(info).as_text()}\n\n{rejected}\nDataset: {path_or_url}"


def dataset_section(folder: Path, path_or_url: str) -> PageSection:
    """Show a prepared dataset; arguments as in ``evaluation_section``."""
    info = PreparedDataset(folder).info
    pictures = [
        *read_figure(folder / "classes.png", "Images of each class by split; the table above has the numbers."),
        *read_figure(folder / "samples.png", "Some faces of each class.", is_chart=False),
    ]
    facts = {"Source": f"{info.source} ({info.source_format})", "Fingerprint": info.fingerprint}
    total = sum(split.rows for split in info.splits.values())
    headline = (
        f"{total:,} images of {info.size} × {info.size} from {info.source} ({info.source_format});"
        f" {info.rejected:,} rejected."
    )
    blocks = [split_table(info), *pictures, *reproduce_blocks(folder, facts)]
    return PageSection(Path(path_or_url).name, "Dataset", path_or_url, headline, blocks, info.notes)


def split_table(info: DatasetInfo) -> Table:
    """Show the number of images of each class, and the number and share with each flaw, one column for each split."""
    splits = info.splits.values()
    rows = [(name, *(f"{split.labels.get(name, 0):,}" for split in splits)) for name in info.label_names]
    if any(split.unlabelled for split in splits):
        rows.append(("without a label", *(f"{split.unlabelled:,}" for split in splits)))
    rows.append(("all images", *(f"{split.rows:,}" for split in splits)))
    for flaw, name in _FLAWS.items():
        counts = {split: getattr(held, flaw) for split, held in info.splits.items()}
        if "leaked" in flaw:
            counts["train"] = None  # copies of train are counted in the other splits only
        if any(count is not None for count in counts.values()):
            rows.append((name, *(_flawed(counts[split], held.rows) for split, held in info.splits.items())))
    return Table("Images by split", ("", *info.splits), rows)


def _flawed(count: int | None, rows: int) -> str:
    if not count:
        return "–" if count is None else "0"
    share = 100 * count / rows
    return f"{count:,} ({share:.1f}%)" if share >= 0.1 else f"{count:,} ({share:.1g}%)"


def draw_dataset(folder: Path, info: DatasetInfo, spool: Spool, rows: SpooledRows) -> None:
    """Write ``classes.png`` and ``samples.png``."""
    _save_classes(folder / "classes.png", info)
    split = next(iter(info.splits))
    canvas = Canvas(figsize=(1.2 * _SAMPLES + 1, 1.2 * len(EMOTIONS) + 0.35), layout="constrained")
    canvas.suptitle(f"{split}, {info.size} × {info.size}", fontsize=10)
    numbers = rows.of_split(split)
    for label, cells in enumerate(canvas.subplots(len(EMOTIONS), _SAMPLES)):
        having = numbers[rows.labels[numbers] == label]
        chosen = having[np.linspace(0, len(having) - 1, min(_SAMPLES, len(having))).astype(int)]
        cells[0].set_ylabel(EMOTIONS[label], rotation=0, ha="right", va="center", fontsize=9)
        for axes in cells:
            axes.spines[:].set_visible(False)
            axes.set(xticks=[], yticks=[])
        for axes, face in zip(cells, spool.pixels(chosen), strict=False):
            axes.imshow(face, cmap="gray", vmin=0, vmax=255)
    canvas.savefig(folder / "samples.png", dpi=FILE_DPI)


def _save_classes(file: Path, info: DatasetInfo) -> None:
    canvas, axes = new_chart(0.9 + 0.2 * len(info.label_names) * (len(info.splits) + 0.6), width=7)
    axes.grid(False)
    height, classes = 0.85 / len(info.splits), np.arange(len(info.label_names))
    for number, (name, split) in enumerate(info.splits.items()):
        places = classes + (number - (len(info.splits) - 1) / 2) * height
        bars = axes.barh(places, list(split.labels.values()), height, label=f"{name} ({split.rows:,} images)")
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(classes, info.label_names)
    axes.invert_yaxis()
    axes.margins(x=0.12)  # room for the numbers
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("images")
    canvas.legend(frameon=False, ncols=len(info.splits), loc="outside upper right", fontsize=9)
    canvas.savefig(file, dpi=FILE_DPI)
