"""Training speed of several workers beside one worker with all cores.

    python tests/benchmarks/workers_speed.py --dataset DATASET --workers 2 --repeats 5

``fer-ray train --workers N`` gives each worker its share of the cores. Both train the same network on the same rows at
the same global batch size, in turns. A rate is images/s of the training part of the last epoch; the first epoch warms
up. Every validation row has to be counted.
"""

from pathlib import Path

from common import compare, options, train

from fer_ray.dataset.store import PreparedDataset

EPOCHS = 2


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; a few thousand rows do")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="config override for both sides")
    arguments = parser.parse_args()
    overrides = [f"training.epochs={EPOCHS}", "schedule.first_size=1", *arguments.set]
    rows = PreparedDataset(arguments.dataset).labelled("validation")

    def rate(workers: int) -> float:
        epochs = train(arguments.dataset, "--workers", workers, overrides=overrides)
        assert [epoch["validation_rows"] for epoch in epochs] == [rows] * EPOCHS, epochs
        return float(epochs[-1]["images_per_s"])

    compare(
        (f"{arguments.workers} workers", lambda: rate(arguments.workers)), ("one", lambda: rate(1)), arguments.repeats
    )


if __name__ == "__main__":
    main()
