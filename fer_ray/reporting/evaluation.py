"""Show an evaluation as a section of a page."""

from pathlib import Path

import pyarrow.parquet as pq

from fer_ray.errors import DataError
from fer_ray.inference.scores import (
    CONFUSION_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    RELIABILITY_FILE,
    SAMPLES_FILE,
    Evaluation,
    read_evaluation,
)
from fer_ray.reporting.evaluation_tables import (
    accuracy_text,
    by_class,
    by_tta,
    confusions_table,
    more_metrics,
    network_names,
    networks,
    pairs_table,
)
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, Table, read_figure
from fer_ray.reporting.reproduce import reproduce_blocks


def evaluation_section(folder: Path, path_or_url: str) -> PageSection:
    """Show an evaluation.

    Args:
        folder: where its files are.
        path_or_url: of the folder, for the page; or of the folder that ``folder`` will become.

    Raises:
        DataError: a file is damaged.
    """
    evaluation = read_evaluation(folder)
    listed = pq.read_metadata(folder / PREDICTIONS_FILE).num_rows
    if listed != evaluation.rows:
        raise DataError(
            f"{folder / PREDICTIONS_FILE}: holds {listed} rows, but {METRICS_FILE} says {evaluation.rows}. Run"
            " `fer-ray evaluate` again."
        )
    main = evaluation.main
    blocks: list[PageBlock] = [
        by_tta(evaluation),
        by_class(evaluation),
        more_metrics(evaluation),
        *confusions_table(evaluation),
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
        *_networks(evaluation),
        *reproduce_blocks(folder, _facts(evaluation)),
    ]
    clean = main.without_leaked if evaluation.leaked_rows else None
    without = f", {clean.accuracy:.2%} without copies of training images" if clean else ""
    headline = (
        f"{accuracy_text(main.official)} accuracy on {evaluation.split} with TTA {evaluation.main_tta}{without};"
        f" macro-F1 {main.official.macro_f1:.3f}."
    )
    return PageSection(Path(path_or_url).name, "Evaluation", path_or_url, headline, blocks, evaluation.notes)


def _networks(evaluation: Evaluation) -> list[Table]:
    pairs = [pairs_table("networks", network_names(evaluation), evaluation.pairs)] if evaluation.pairs else []
    return [networks(evaluation), *pairs]


def _facts(evaluation: Evaluation) -> dict[str, str]:
    return {
        "Dataset": f"{evaluation.dataset}, fingerprint {evaluation.dataset_fingerprint[:16]}",
        "Computed on": f"{evaluation.device}, {evaluation.precision}",
        "Seed": "none: nothing is random",
    }


def _galleries(file: Path) -> list[Gallery]:
    if not file.is_file():
        return []
    faces = [
        GalleryFace(row["png"], row["label"], row["predicted"], row["confidence"])
        for row in pq.read_table(file).to_pylist()
    ]
    note = "The percentage is the probability of the predicted label."
    galleries = [
        Gallery("The most confident mistakes", [face for face in faces if not face.is_correct], note),
        Gallery("Some correct predictions of each class", [face for face in faces if face.is_correct], note),
    ]
    return [gallery for gallery in galleries if gallery.faces]
