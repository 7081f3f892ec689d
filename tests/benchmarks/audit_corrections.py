"""Train with and without an audit's corrections of the training labels, and compare the accuracies on validation.

    python tests/benchmarks/audit_corrections.py --source fer2013-images.zip --audit DIR --output RUNS --seeds 0 1 2

``plain``: labels as they are. ``left_out``: rows that are likely wrong are left out. ``relabelled``: they get the
proposed label. ``soft``: the mean of label and probabilities. Validation keeps its labels. The accuracy is that of the
last epoch, which no label chose. A run that is there already is resumed.
"""

import argparse
import json
import statistics
from pathlib import Path

import pandas as pd

from fer_ray.prepare import prepare
from fer_ray.train import train

VARIANTS = ("plain", "left_out", "relabelled", "soft")


def corrections(audit: Path, variant: str, folder: Path) -> Path | None:
    if variant in ("plain", "soft"):
        return audit / "audit.parquet" if variant == "soft" else None
    lines = pd.read_csv(audit / "corrections.csv", dtype=str)
    file = folder / f"{variant}.csv"
    lines.assign(keep="no" if variant == "left_out" else "yes").to_csv(file, index=False)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--audit", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--config", default="fast")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    out: Path = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in arguments.variants}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            if not (dataset := out / f"dataset-{variant}").is_dir():
                prepare(arguments.source, dataset, corrections=corrections(arguments.audit, variant, out))
            run = out / f"{variant}-{seed}"
            soft = ["loss.soft_labels=true"] if variant == "soft" else []
            changes = [*arguments.overrides, *soft, f"training.seed={seed}"]
            result = train(dataset, arguments.config, run, overrides=changes, resume=run.is_dir())
            found[variant].append(result.history[-1])
            line = {name: round(value, 4) for name, value in result.history[-1].items()}
            print(json.dumps({"variant": variant, "seed": seed, **line}), flush=True)
    for variant, lines in found.items():
        for metric in ("validation_accuracy", "validation_macro_f1", "validation_loss"):
            values = [line[metric] for line in lines]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"{variant}: {metric} {statistics.mean(values):.4f} ± {spread:.4f} (n = {len(values)})")


if __name__ == "__main__":
    main()
