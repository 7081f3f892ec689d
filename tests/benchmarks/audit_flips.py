"""Change some training labels of FER-2013, audit them, and measure how well the audit finds the changed ones.

    python tests/benchmarks/audit_flips.py --source fer2013-images.zip --output DIR --by even --set training.epochs=12

``even``: the new label is any other one. ``confusion``: it is drawn as the network in the package confuses labels on
PublicTest, so that changed labels look like real mistakes.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from fer_ray.audit import audit
from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.label_quality import LIKELY_WRONG
from fer_ray.inference.predictor import Predictor
from fer_ray.prepare import prepare
from fer_ray.weights import SHIPPED_CHECKPOINT

TOP = 1000


def new_labels(labels: np.ndarray, chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw another label for each; ``chances`` are K × K, from the label in the row to that in the column."""
    chances = chances * (1 - np.eye(len(EMOTIONS)))
    chances /= chances.sum(axis=1, keepdims=True)
    return np.array([rng.choice(len(EMOTIONS), p=chances[label]) for label in labels])


def confusions(dataset: PreparedDataset) -> np.ndarray:
    test = dataset.load("test" if "test" in dataset.info.splits else "validation")
    counts = np.zeros((len(EMOTIONS), len(EMOTIONS)))
    np.add.at(counts, (test.labels, Predictor(SHIPPED_CHECKPOINT).predict(test.images).labels), 1)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--by", choices=["even", "confusion"], required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    out: Path = arguments.output
    if not (plain := out / "plain").is_dir():
        prepare(arguments.source, plain)
    dataset = PreparedDataset(plain)
    train, rng = dataset.load("train"), np.random.default_rng(arguments.seed)
    flipped = np.sort(rng.choice(len(train), round(arguments.share * len(train)), replace=False))
    chances = np.ones((7, 7)) if arguments.by == "even" else confusions(dataset)
    after = new_labels(train.labels[flipped], chances, rng)
    changed, corrections = out / f"dataset-{arguments.by}", out / f"flips-{arguments.by}.csv"
    if not changed.is_dir():
        with corrections.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["id", "label", "proposed", "keep"])
            for row, label in zip(flipped, after, strict=True):
                lines.writerow([train.ids[row], EMOTIONS[train.labels[row]], EMOTIONS[label], "yes"])
        prepare(arguments.source, changed, corrections=corrections)
    run = out / f"audit-{arguments.by}"
    result = audit(changed, run, folds=arguments.folds, overrides=arguments.overrides, resume=run.is_dir())
    frame = result.table.set_index("id").loc[train.ids]
    is_flipped = np.isin(np.arange(len(train)), flipped)
    first = frame["rank"].to_numpy().argsort()[:TOP]
    wrong = (frame["kind"] == LIKELY_WRONG).to_numpy()
    figures = {
        "by": arguments.by,
        "flipped": len(flipped),
        "auc": roc_auc_score(is_flipped, -frame["rank"]),
        f"flipped_among_first_{TOP}": int(is_flipped[first].sum()),
        "likely_wrong": int(wrong.sum()),
        "flipped_likely_wrong": int((wrong & is_flipped).sum()),
        "proposed_is_original": float((frame["proposed"].to_numpy() == train.labels)[is_flipped & wrong].mean()),
        "agrees_with_original": float((frame["proposed"].to_numpy() == train.labels).mean()),
        "agrees_with_label": float((frame["proposed"] == frame["label"]).mean()),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
