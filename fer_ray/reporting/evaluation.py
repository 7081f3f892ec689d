"""Write the folder of an evaluation, show it as a section of a page, and compare several."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure as Canvas
from sklearn.metrics import ConfusionMatrixDisplay

from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS, NUM_CLASSES, PROBABILITY_COLUMNS
from fer_ray.images.decode import png_of
from fer_ray.inference.calibration import ReliabilityBin, expected_calibration_error
from fer_ray.inference.predictor import Predictions
from fer_ray.inference.scores import METRICS_FILE, PREDICTIONS_FILE, Evaluation, compare_members, read_evaluation
from fer_ray.reporting import evaluation_tables as tables
from fer_ray.reporting.charts import FILE_DPI, new_chart
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, Table, read_figure, render_page
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.reporting.reproduce import reproduce_blocks
from fer_ray.storage.output import Output
from fer_ray.storage.provenance import Start, record_start

CONFUSION_FILE, RELIABILITY_FILE, SAMPLES_FILE = "confusion.png", "reliability.png", "samples.parquet"
_MISTAKES = 24  # in samples.parquet


def write_evaluation(
    output: Output, evaluation: Evaluation, rows: Split, predictions: Predictions, card: str, start: Start
) -> None:
    """Write all files of an evaluation at once: a killed process leaves none of them.

    The output is absent or empty. The predictions are for ``rows``, with the main test-time augmentation. ``start`` is
    the command that runs.
    """
    measured, title = evaluation.main, f"{evaluation.split}, TTA {evaluation.main_tta}"
    with output.whole() as partial:
        record_start(partial, start)
        (partial / METRICS_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        pq.write_table(_table(rows, predictions), partial / PREDICTIONS_FILE)
        pq.write_table(_mistakes(rows, predictions), partial / SAMPLES_FILE)
        _save_confusion(np.array(measured.official.confusion), title, partial / CONFUSION_FILE)
        _save_reliability(measured.reliability, title, partial / RELIABILITY_FILE)
        page = render_page("Evaluation", [evaluation_section(partial, output.path_or_url)])
        (partial / "report.html").write_text(page, "utf-8")
        (partial / CARD_FILE).write_text(card, "utf-8")


def _table(rows: Split, predictions: Predictions) -> pa.Table:
    columns = {
        "id": rows.ids,
        "label": rows.labels.astype(np.int8),
        "predicted": predictions.labels.astype(np.int8),
        "confidence": predictions.confidence,
        **dict(zip(PROBABILITY_COLUMNS, predictions.probabilities.T, strict=True)),
        "tta_std": predictions.tta_std,
        "leaked": rows.leaked,
    }
    return pa.table(columns)


def _mistakes(rows: Split, predictions: Predictions) -> pa.Table:
    wrong = np.flatnonzero(predictions.labels != rows.labels)
    numbers = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_MISTAKES]
    columns = {
        "id": [rows.ids[number] for number in numbers],
        "label": [EMOTIONS[label] for label in rows.labels[numbers]],
        "predicted": [EMOTIONS[label] for label in predictions.labels[numbers]],
        "confidence": predictions.confidence[numbers],
        "png": [png_of(image) for image in rows.images[numbers]],
    }
    return pa.table(columns)


def _save_reliability(bins: Sequence[ReliabilityBin], title: str, path: Path) -> None:
    """Write a PNG of a reliability diagram (Guo et al. 2017, arXiv 1706.04599, figure 4).

    Confidence equals accuracy on the diagonal; predictions below it are over-confident.
    """
    canvas = Canvas(figsize=(4.6, 5.2), layout="constrained")
    above, below = canvas.subplots(2, sharex=True, height_ratios=(3, 1))
    middles, width = [(one.low + one.high) / 2 for one in bins], 0.9 / len(bins)
    above.bar(middles, [one.accuracy or 0 for one in bins], width, label="accuracy")
    above.plot([0, 1], [0, 1], "--", color="tab:red", linewidth=1, label="confidence = accuracy")
    above.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="accuracy")
    above.set_title(f"{title}: ECE {expected_calibration_error(bins):.3f}", fontsize=10)
    above.legend(frameon=False, fontsize=8, loc="best")
    bars = below.bar(middles, [one.rows for one in bins], width, color="tab:gray")
    below.bar_label(bars, [f"{one.rows:,}" if one.rows else "" for one in bins], fontsize=6)
    below.set(xlabel="confidence (highest probability)", ylabel="images")
    below.margins(y=0.15)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=FILE_DPI)


def _save_confusion(counts: np.ndarray, title: str, path: Path) -> None:
    """Write a PNG of a confusion matrix (int, K × K, true label first): counts, coloured by their share of the row."""
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    side = 0.8 * NUM_CLASSES
    canvas, axes = new_chart(side + 1.2, side + 2.0)
    axes.grid(False)
    display = ConfusionMatrixDisplay(shares, display_labels=EMOTIONS)
    display.plot(ax=axes, cmap="Blues", xticks_rotation=35, colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    for cell, count, share in zip(display.text_.flat, counts.flat, shares.flat, strict=True):
        cell.set(text=f"{count:,}\n{share:.0%}", fontsize=8)
    axes.set_yticklabels([f"{name} ({total:,})" for name, total in zip(EMOTIONS, totals, strict=True)])
    axes.set(xlabel="predicted", ylabel="label (images)", title=title)
    canvas.savefig(path, dpi=FILE_DPI)


def evaluation_section(folder: Path, path_or_url: str) -> PageSection:
    """Show an evaluation, whose files are in ``folder``; ``DataError`` if one is damaged.

    ``path_or_url`` is that of the folder, for the page; or of the folder that ``folder`` will become.
    """
    evaluation = read_evaluation(folder)
    facts = {
        "Dataset": f"{evaluation.dataset}, fingerprint {evaluation.dataset_fingerprint[:16]}",
        "Computed on": f"{evaluation.device}, {evaluation.precision}",
        "Seed": "none: nothing is random",
    }
    blocks: list[PageBlock] = [
        tables.by_tta(evaluation),
        tables.by_class(evaluation),
        *tables.confusions_table(evaluation),
        *read_figure(
            folder / CONFUSION_FILE,
            f"Confusion matrix of the {evaluation.split} split; the table above has its largest cells.",
            "Confusion matrix",
        ),
        *read_figure(
            folder / RELIABILITY_FILE,
            "Reliability diagram: accuracy by confidence; the first table has its summary, ECE.",
            "Reliability: accuracy of the predictions in each bin of confidence",
        ),
        *_galleries(folder / SAMPLES_FILE),
        *tables.networks_and_pairs(evaluation),
        *reproduce_blocks(folder, facts),
    ]
    main = evaluation.main
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without copies of training images" if clean else ""
    headline = (
        f"{tables.accuracy_text(main.official)} accuracy on {evaluation.split} with TTA {evaluation.main_tta}{without};"
        f" macro-F1 {main.official.macro_f1:.3f}."
    )
    return PageSection(Path(path_or_url).name, "Evaluation", path_or_url, headline, blocks, evaluation.notes)


def _galleries(file: Path) -> list[Gallery]:
    faces = [
        GalleryFace(row["png"], row["label"], row["predicted"], row["confidence"])
        for row in (pq.read_table(file).to_pylist() if file.is_file() else [])
    ]
    note = "The percentage is the probability of the predicted label."
    return [Gallery("The most confident mistakes", faces, note)] if faces else []


def compare_evaluations(folders: Mapping[str, Path]) -> list[PageSection]:
    """Compare evaluations of the same split of the same dataset, in one section for each split that has several.

    ``folders`` maps names on the page to folders.
    """
    groups: dict[tuple[str, str], dict[str, Evaluation]] = {}
    for name, folder in folders.items():
        evaluation = read_evaluation(folder)
        groups.setdefault((evaluation.dataset_fingerprint, evaluation.split), {})[name] = evaluation
    return [_comparison(split, group, folders) for (_, split), group in groups.items() if len(group) > 1]


def _comparison(split: str, evaluations: dict[str, Evaluation], folders: Mapping[str, Path]) -> PageSection:
    names = sorted(evaluations, key=lambda name: -evaluations[name].main.official.accuracy)
    rows = [
        {
            "Evaluation": name,
            "Networks": " + ".join(member.architecture for member in evaluations[name].members),
            "TTA": evaluations[name].main_tta,
            "Accuracy": tables.accuracy_text(main.official),
            "Without copies": tables.accuracy_text(main.without_leaked if evaluations[name].leaked_rows else None),
            "Macro-F1": f"{main.official.macro_f1:.3f}",
            "ECE": f"{main.official.ece:.3f}",
            "Images/s": f"{main.images_per_s:,.0f}",
        }
        for name, main in ((name, evaluations[name].main) for name in names)
    ]
    note = (
        "Each evaluation counts with its main TTA. Brackets hold the 95% interval (Wilson). All are of the same images,"
        " so the table of pairs shows a difference more reliably than the intervals do."
    )
    blocks = [Table.of(f"Evaluations by accuracy, {split} split", rows, note), *_pairs(names, folders)]
    highest, lowest = (evaluations[name].main.official.accuracy for name in (names[0], names[-1]))
    best = f"from {lowest:.2%} to {highest:.2%} accuracy; the best is {names[0]}"
    headline = f"{len(names)} evaluations of {split} {best if lowest < highest else f'all at {highest:.2%}'}."
    return PageSection(f"Evaluations of {split} compared", "Comparison", "", headline, blocks)


def _pairs(names: list[str], folders: Mapping[str, Path]) -> list[Table]:
    """Compare each pair of evaluations; return nothing unless all list the same rows in the same order."""
    read = [pq.read_table(folders[name] / PREDICTIONS_FILE, columns=["id", "label", "predicted"]) for name in names]
    if not all(table["id"].equals(read[0]["id"]) for table in read):
        return []
    labels = read[0]["label"].to_numpy()
    pairs = compare_members(labels, np.stack([table["predicted"].to_numpy() for table in read]))
    return [tables.pairs_table("evaluations", names, pairs)]
