"""How far probabilities can be believed, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_ray.learning.calibration import ReliabilityBin, expected_calibration_error


def save_reliability(panels: Mapping[str, Sequence[ReliabilityBin]], title: str, path: Path) -> None:
    """Draw accuracy by confidence, and below it how many images each bar stands for, side by side, as a PNG.

    The reliability diagram of Guo et al. 2017 (arXiv 1706.04599), figure 4. On the diagonal a probability is what it
    says; below it predictions are over-confident.

    Args:
        panels: name to bins, one or more.
        title: a line above.
        path: the PNG to write.
    """
    figure = Figure(figsize=(4.2 * len(panels), 5.2), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for number, (name, bins) in enumerate(panels.items()):
        above, below = grid[:, number]
        _draw_accuracy(above, bins)
        above.set_title(f"{name}: ECE {expected_calibration_error(bins):.3f}", fontsize=10)
        middles, width = [(one.low + one.high) / 2 for one in bins], bins[0].high - bins[0].low
        bars = below.bar(middles, [one.rows for one in bins], 0.9 * width, color="tab:gray")
        below.bar_label(bars, [f"{one.rows:,}" if one.rows else "" for one in bins], fontsize=6)
        below.set(xlabel="confidence: the highest probability", xlim=(0, 1))
        below.margins(y=0.15)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("images")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


def _draw_accuracy(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    filled = [one for one in bins if one.accuracy is not None and one.confidence is not None]
    middles, width = [(one.low + one.high) / 2 for one in filled], bins[0].high - bins[0].low
    axes.bar(middles, [one.accuracy or 0 for one in filled], 0.9 * width, color="tab:blue", label="accuracy")
    axes.plot(
        [one.confidence or 0 for one in filled],
        [one.accuracy or 0 for one in filled],
        "o-",
        color="black",
        markersize=3,
        linewidth=0.8,
        label="at the bar's mean confidence",
    )
    axes.plot([0, 1], [0, 1], "--", color="tab:red", linewidth=1, label="as confident as right")
    axes.set_ylim(0, 1.02)
