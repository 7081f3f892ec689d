"""Show an audit of labels: as a section of a page, and as plain text."""

from pathlib import Path

import numpy as np
import pandas as pd

from fer_ray.emotions import EMOTIONS, PROBABILITY_COLUMNS
from fer_ray.images.decode import png_of
from fer_ray.inference.calibration import expected_calibration_error, reliability_bins
from fer_ray.inference.label_quality import AMBIGUOUS, AMBIGUOUS_MARGIN, LIKELY_WRONG, LabelQuality, wrong_shares
from fer_ray.reporting.html import Gallery, GalleryFace, PageBlock, PageSection, Table
from fer_ray.reporting.reproduce import reproduce_blocks

_SHOWN = 40  # faces of each gallery


def describe_audit(frame: pd.DataFrame) -> str:
    """Count the kinds of labels in ``audit.parquet``, as plain text."""
    labels = frame["label"].map(dict(enumerate(EMOTIONS)))
    return pd.crosstab(labels, frame["kind"], rownames=["label"], margins=True, margins_name="all").to_string()


def audit_section(
    images: np.ndarray, frame: pd.DataFrame, quality: LabelQuality, folder: Path, path_or_url: str
) -> PageSection:
    """Show an audit in ``folder``, which has its ``provenance.json``.

    ``images`` are those of the audited rows, uint8, n × size × size. ``frame`` has their columns in ``audit.parquet``,
    and ``first_rank``, the lowest rank of an image's copies.
    """
    probabilities, labels = frame[PROBABILITY_COLUMNS].to_numpy(), frame["label"].to_numpy()
    wrong, ambiguous = frame[frame["kind"] == LIKELY_WRONG].sort_values("rank"), frame[frame["kind"] == AMBIGUOUS]
    copies = frame[frame["conflict"]].sort_values(["first_rank", "rank"])
    shown = {"Copies of one image under several labels": copies}
    shown |= {f"Labelled {name}, likely wrong": wrong[wrong["label"] == label] for label, name in enumerate(EMOTIONS)}
    second = np.sort(ambiguous[PROBABILITY_COLUMNS])[:, -2]
    shown["Ambiguous"] = ambiguous.assign(second=second).sort_values("second")[::-1]
    galleries = [_gallery(name, held, images) for name, held in shown.items() if len(held)]
    ece = expected_calibration_error(reliability_bins(labels, probabilities))
    return PageSection(
        Path(path_or_url).name,
        "Audit of labels",
        path_or_url,
        f"{len(wrong):,} of {len(frame):,} labels are likely wrong, {len(ambiguous):,} images are ambiguous. An"
        f" estimated {_share(quality, len(EMOTIONS))} of all labels are wrong.",
        [*_tables(frame, quality), *galleries, *reproduce_blocks(folder, {})],
        [
            f"Networks that saw neither an image nor a copy of it predicted it. They agree with"
            f" {(frame['proposed'] == labels).mean():.1%} of the labels; their calibration error (ECE) is {ece:.3f}."
            " Where they are wrong themselves, a right label is called likely wrong: look before you correct. Then edit"
            " corrections.csv: a removed line keeps its label, keep = no leaves the image out. `fer-ray prepare"
            " --corrections` takes it.",
            "Intervals (95%) say how far an estimate depends on which images the dataset happens to hold. An error that"
            " all networks share is not in them.",
        ],
    )


def _share(quality: LabelQuality, label: int) -> str:
    low, high = quality.wrong_intervals[label]
    return f"{wrong_shares(quality.joint)[label]:.1%} ({100 * low:.1f}–{high:.1%})"


def _tables(frame: pd.DataFrame, quality: LabelQuality) -> list[PageBlock]:
    counts, noise = [], []
    for label, name in enumerate(EMOTIONS):
        own, truly = frame.loc[frame["label"] == label, "kind"], quality.joint[label]
        order = [other for other in np.argsort(-truly, kind="stable") if other != label and truly[other]]
        counts.append(
            {
                "Label": name,
                "Images": f"{len(own):,}",
                "Likely wrong": f"{(own == LIKELY_WRONG).sum():,}",
                "Ambiguous": f"{(own == AMBIGUOUS).sum():,}",
                "Wrong, estimated": _share(quality, label),
                "Truly, estimated": ", ".join(f"{EMOTIONS[other]} {truly[other]:,.0f}" for other in order[:3]) or "–",
            }
        )
        shares = truly / np.maximum(quality.joint.sum(axis=0), 1)
        noise.append(
            {"Label": name} | {f"truly {true}": f"{share:.1%}" for true, share in zip(EMOTIONS, shares, strict=True)}
        )
    note = (
        "Likely wrong: the probability of another label is as high as images of that label have it on average."
        f" Ambiguous: of the others, those whose two highest probabilities differ by less than {AMBIGUOUS_MARGIN:g}."
        " Estimates are those of confident learning (Northcutt, Jiang and Chuang 2021)."
    )
    rule = "Estimated share of the images that are truly of a class (column) and have a label (row)."
    return [Table.of("Labels", counts, note), Table.of("Noise matrix", noise, rule)]


def _gallery(caption: str, held: pd.DataFrame, images: np.ndarray) -> Gallery:
    faces = []
    for row, label, kind, *probabilities in held[["label", "kind", *PROBABILITY_COLUMNS]].head(_SHOWN).itertuples():
        first, second = np.argsort(probabilities)[:-3:-1]
        name = f"{EMOTIONS[first]} or {EMOTIONS[second]}" if kind == AMBIGUOUS else EMOTIONS[first]
        true = None if name == EMOTIONS[label] else EMOTIONS[label]
        faces.append(GalleryFace(png_of(images[row]), true, name, probabilities[first]))
    note = f"At most {_SHOWN}. The network's label with its probability, in red where the image has another."
    return Gallery(f"{caption}: {len(held):,}", faces, note)
