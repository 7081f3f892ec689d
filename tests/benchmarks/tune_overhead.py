"""What a search costs a trial beyond its training loop, and how busy it keeps the CPUs.

    python tests/benchmarks/tune_overhead.py --model cnn3 --trials 20

Searches 4,000 drawn faces with short trials, as many at once as there are CPUs. A trial's cost is the time from the end
of the trial before it on the same CPU to its own end, less the time that the training loop reports for its epochs
(training and validation). So drawing parameters, writing the study, starting, building the network and keeping
checkpoints count. The first trial on each CPU, which waits for Ray and for the import of PyTorch, is left out.
"""

import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from common import machine, options, stage

SPACES = Path(__file__).parents[2] / "search_spaces"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int, default=5000, help="drawn ones; eight of ten are for training")
    arguments = parser.parse_args()
    at_once, space = len(os.sched_getaffinity(0)), SPACES / f"{arguments.model}.yaml"
    with tempfile.TemporaryDirectory() as folder:
        dataset, run = Path(folder) / "dataset", Path(folder) / "run"
        search = ("--dataset", dataset, "--space", space, "--trials", arguments.trials, "--output", run)
        settings = ("--set", f"training.epochs={arguments.epochs}", "--max-concurrent", at_once, "--scheduler", "none")
        for command in (stage("prepare", f"synthetic:{arguments.images}", dataset), stage("tune", *search, *settings)):
            subprocess.run(command, check=True, capture_output=True)
        trials = sorted(pq.read_table(run / "trials.parquet").to_pylist(), key=lambda trial: trial["started"])
    first, later = trials[:at_once], trials[at_once:]
    free, beyond = [trial["ended"] for trial in first], []  # since when each CPU has had no trial
    for trial in later:
        since = min(free)
        free[free.index(since)] = trial["ended"]
        beyond.append((trial["ended"] - since).total_seconds() - trial["seconds"])
    lengths = [trial["seconds"] for trial in later]
    print(f"{machine()}; {arguments.model}, {at_once} trials at once")
    print(f"{len(trials)} trials, median {statistics.median(lengths):.2f} s in their epochs")
    print(f"beyond them, of {len(beyond)}: median {statistics.median(beyond):.2f} s, max {max(beyond):.2f} s")
    print(f"CPUs in epochs while trials were left: {sum(lengths) / (sum(lengths) + sum(beyond)):.1%}")


if __name__ == "__main__":
    main()
