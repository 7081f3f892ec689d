"""Kill training at random moments, and check that the result is that of an undisturbed run.

    python tests/benchmarks/resume_kills.py --dataset DATASET --kills 20

``driver``: ``fer-ray train`` with one worker is killed (SIGKILL) and resumed. In the end the run has each epoch once,
the files of an undisturbed run, and its weights bit by bit. ``worker``: one of two workers is killed, and the run
continues by itself. ``driver2``: the driver of two workers is killed and resumed. The smaller the dataset, the more
kills hit while files are written.
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import DRIVER, history, kill_options, kill_runs, named, names, resume, stage

from fer_ray.inference.checkpoint import load_checkpoint

EPOCHS = 6
WORKER = "ray::RayTrainWorker"
KINDS = {"driver": (DRIVER, 1), "worker": (WORKER, 2), "driver2": (DRIVER, 2)}
"""What is killed, and the number of workers."""


@dataclass
class Training:
    """Training runs with one or several workers.

    Attributes:
        plain: an undisturbed run, to compare with.
    """

    dataset: Path
    plain: Path
    settings: Iterable[str]
    workers: int = 1
    epochs: int = EPOCHS

    def is_at_work(self, pid: int, run: Path) -> bool:
        return run.is_dir() if self.workers == 1 else bool(named(pid, WORKER))

    def command(self, run: Path) -> list[str]:
        settings = [f"training.epochs={self.epochs}", "training.max_failures=1000", *self.settings]
        changes = [part for setting in settings for part in ("--set", setting)]
        own = ("--workers", self.workers, "--dataset", self.dataset, "--output", run)
        return stage("train", *own, *changes, *resume(run))

    def progress(self, run: Path) -> str:
        return f"{len(history(run))} of {self.epochs} epochs"

    def check(self, run: Path) -> None:
        lines = history(run)
        assert [line["epoch"] for line in lines] == list(range(1, self.epochs + 1)), f"{run}: epochs {lines}"
        best = max(lines, key=lambda line: line["validation_accuracy"])
        assert load_checkpoint(run / "checkpoint").info.epoch == best["epoch"], f"{run}: another best epoch"
        assert load_checkpoint(run / "last").info.epoch == self.epochs, f"{run}: another last epoch"
        if self.plain.is_dir():
            assert names(run) == names(self.plain), f"{run}: other files: {names(run) ^ names(self.plain)}"
            if self.workers == 1:
                first, second = (load_checkpoint(one / "last").model.state_dict() for one in (run, self.plain))
                assert all(torch.equal(first[key], second[key]) for key in first), f"{run}: other weights"


def main() -> None:
    parser = kill_options(__doc__, KINDS)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--model", default="cnn3")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    settings = [f"model.name={arguments.model}", "training.batch_size=64", "optimizer.name=adam"]
    settings.append("optimizer.learning_rate=0.001")
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            victim, workers = KINDS[kind]
            work = Training(arguments.dataset, Path(folder) / f"plain-{kind}", settings, workers)
            began = time.monotonic()
            subprocess.run(work.command(work.plain), check=True, capture_output=True)
            longest = (time.monotonic() - began) / (1 if workers == 1 else 2)
            kill_runs(work, kind, victim, arguments.kills, Path(folder), longest)


if __name__ == "__main__":
    main()
