"""Kill an audit at random moments, and check that the result is that of an undisturbed one, bit by bit.

    python tests/benchmarks/audit_kills.py --dataset DATASET --kills 5

Kills (SIGKILL) the driver or the raylet, after which the audit is resumed, or the process of a network, after which it
continues by itself.
"""

import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from common import kill_options, kill_runs, named, resume, stage
from search_kills import KINDS, TRIAL

EPOCHS, FOLDS = 8, 3
FILES = {"audit.parquet", "audit.html", "corrections.csv", "provenance.json", "study.db", "study.json", ".lock"}


@dataclass
class Audit:
    """Audits of a dataset; ``plain`` is an undisturbed one, to compare with."""

    dataset: Path
    plain: Path
    epochs: int = EPOCHS

    def is_at_work(self, pid: int, run: Path) -> bool:
        return bool(named(pid, TRIAL))

    def command(self, run: Path) -> list[str]:
        settings = [f"training.epochs={self.epochs}", "training.batch_size=32", "training.max_failures=1000"]
        changes = [part for setting in settings for part in ("--set", setting)]
        own = ("--dataset", self.dataset, "--config", "lenet", "--folds", FOLDS, "--max-concurrent", 2)
        return stage("audit", *own, *changes, "--output", run, *resume(run))

    def progress(self, run: Path) -> str:
        epochs = [len(file.read_text().splitlines()) for file in sorted(run.glob(".trials/*/metrics.jsonl"))]
        return f"epochs {epochs} of {self.epochs}"

    def check(self, run: Path) -> None:
        found, expected = (pd.read_parquet(one / "audit.parquet") for one in (run, self.plain))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        same = [(one / "corrections.csv").read_bytes() for one in (run, self.plain)]
        assert same[0] == same[1], f"{run}: other corrections"
        assert {file.name for file in run.iterdir()} == FILES, f"{run}: {sorted(run.iterdir())}"


def main() -> None:
    parser = kill_options(__doc__, KINDS, 5)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--longest", type=float, default=8, help="seconds of training before a kill, at most")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Audit(arguments.dataset, Path(folder) / "plain")
        subprocess.run(work.command(work.plain), check=True, capture_output=True)
        for kind in arguments.kinds:
            kill_runs(work, kind, KINDS[kind], arguments.kills, Path(folder), arguments.longest)


if __name__ == "__main__":
    main()
