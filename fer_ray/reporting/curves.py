"""Loss and accuracy over the epochs of a run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Metrics = dict[str, float]


def save_curves(history: list[Metrics], path: Path) -> None:
    """Draw loss, accuracy and macro-F1 by epoch, the best validation accuracy marked, as a PNG.

    Args:
        history: the lines of ``metrics.jsonl``, at least one.
        path: the PNG to write.
    """
    epochs = [line["epoch"] for line in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, kind in ((left, "loss"), (right, "accuracy")):
        for split, style in (("train", "--"), ("validation", "-")):
            axes.plot(epochs, [line[f"{split}_{kind}"] for line in history], style, marker=".", label=split)
        axes.set(xlabel="epoch", ylabel=kind, title=kind.capitalize())
    right.plot(epochs, [line["validation_macro_f1"] for line in history], ":", label="validation macro-F1")
    best = max(history, key=lambda line: line["validation_accuracy"])
    label = f"best {best['validation_accuracy']:.2%}, epoch {best['epoch']:.0f}"
    right.plot(best["epoch"], best["validation_accuracy"], "k*", markersize=10, label=label)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    left.text(0.02, 0.02, "train: augmented, with label smoothing", transform=left.transAxes, fontsize=8, alpha=0.7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
