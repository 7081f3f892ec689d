"""Training speed of several workers beside one worker with all cores.

    python tests/benchmarks/workers_speed.py --dataset DATASET --workers 2 --repeats 5

``fer-ray train --workers N`` gives each worker its share of the cores; one worker trains in a process that has all of
them. Both train the same network on the same rows at the same global batch size, in turns. A ratio is the images/s of
the workers together over those of the one, of the training part of the last epoch; the first epoch warms up. Prints the
median of the ratios and their spread.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fer_ray.dataset.store import PreparedDataset

EPOCHS = 2


def images_per_s(dataset: Path, workers: int, overrides: list[str]) -> float:
    """Return images/s of the last epoch of ``fer-ray train``, having checked that it counted every validation row."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "fer_ray.train", "--dataset", str(dataset), "--output", str(run)]
        command += ["--workers", str(workers)]
        for override in [f"training.epochs={EPOCHS}", "schedule.first_size=1", *overrides]:
            command += ["--set", override]
        subprocess.run(command, check=True, capture_output=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = PreparedDataset(dataset).labelled("validation")
    assert [line["validation_rows"] for line in lines] == [rows] * EPOCHS, lines
    return float(lines[-1]["images_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; a few thousand rows do")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="config override for both sides")
    arguments = parser.parse_args()
    ratios = []
    for repeat in range(arguments.repeats):
        several, one = (images_per_s(arguments.dataset, count, arguments.set) for count in (arguments.workers, 1))
        ratios.append(several / one)
        several_workers = f"{arguments.workers} workers {several:,.0f} images/s"
        print(f"{repeat + 1}: {several_workers}, one {one:,.0f}, ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"ratio median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), n = {len(ratios)};"
        f" {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch"
        f" {torch.__version__}"
    )


if __name__ == "__main__":
    main()
