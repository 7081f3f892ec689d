"""Kill a search at random moments, and check that the result is what was requested.

    python tests/benchmarks/search_kills.py --dataset DATASET --kills 20

Kills (SIGKILL) the driver, the raylet (the process of Ray on which all work of a machine depends), or the process of a
trial. After the first two the search is resumed; after the last it continues by itself. In the end the study has the
requested number of trials, none twice and none left running, a trial that continues another one has its epochs, and
``best/`` is the best trial's. The smaller the dataset, the more kills hit while something is written.
"""

import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import optuna
import pyarrow.parquet as pq
from common import DRIVER, RAYLET, kill_options, kill_runs, named, resume, stage

from fer_ray.inference.checkpoint import load_checkpoint

TRIAL = "ray::ImplicitFunc"
KINDS = {"driver": DRIVER, "raylet": RAYLET, "trial": TRIAL}
SPACE = """
model: {name: cnn3, dropout: 0.5}
optimizer: {name: adam, learning_rate: 0.001}
schedule: {first_size: 1}
training: {epochs: 3, batch_size: 64, max_failures: 1000}
search:
  model.dropout: {uniform: [0.2, 0.7]}
  optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
"""


@dataclass
class Search:
    """Searches of ``SPACE``, which ``space`` is to hold."""

    dataset: Path
    space: Path
    trials: int
    options: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self.space.write_text(SPACE)

    def is_at_work(self, pid: int, run: Path) -> bool:
        return bool(named(pid, TRIAL))

    def command(self, run: Path) -> list[str]:
        own = ("--dataset", self.dataset, "--space", self.space, "--trials", self.trials, "--output", run)
        return stage("tune", *own, *self.options, *resume(run))

    def progress(self, run: Path) -> str:
        counts = Counter(trial.state.name for trial in trials_of(run))
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))

    def check(self, run: Path) -> None:
        trials = trials_of(run)
        finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
        lost = [trial for trial in trials if trial.state.name == "FAIL" and trial.params]
        assert len(finished) == self.trials, f"{run}: {self.progress(run)}"
        assert all(trial.state.is_finished() for trial in trials), f"{run}: {self.progress(run)}"
        assert len({str(trial.params) for trial in finished}) == self.trials, f"{run}: a trial counts twice"
        for trial in lost:
            again = [one for one in finished if trial.params.items() <= one.params.items()]
            assert len(again) == 1, f"{run}: trial {trial.number} was lost, and not tried again"
            epochs = again[0].intermediate_values
            same = all(epochs.get(epoch, value) == value for epoch, value in trial.intermediate_values.items())
            assert same, f"{run}: trial {again[0].number} has {epochs}, not {trial.intermediate_values}"
        self._check_files(run, trials)
        with_epochs = sum(bool(trial.intermediate_values) for trial in lost)
        print(f"{run.name}: {len(finished)} trials; {len(lost)} lost, {with_epochs} after an epoch or more", flush=True)

    def _check_files(self, run: Path, trials: list[optuna.trial.FrozenTrial]) -> None:
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        best = max(complete, key=lambda trial: (trial.value, -trial.number))
        info = load_checkpoint(run / "best").info
        assert info.metrics["validation_accuracy"] == best.value, f"{run}: best/ is not of trial {best.number}"
        assert info.config.model.dropout == best.params["model.dropout"], f"{run}: best/ is not of trial {best.number}"
        assert pq.read_table(run / "trials.parquet").num_rows == len(trials), f"{run}: rows of trials.parquet"
        left = [path.name for path in run.iterdir() if path.name.startswith(".") and path.name != ".lock"]
        assert not left, f"{run}: left over are {left}"


def trials_of(run: Path) -> list[optuna.trial.FrozenTrial]:
    """Return all trials of a search; none if there is no study yet."""
    storage = f"sqlite:///{run / 'study.db'}"
    if not (run / "study.db").is_file():
        return []
    return [
        trial
        for name in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=name, storage=storage).trials
    ]


def main() -> None:
    parser = kill_options(__doc__, KINDS)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--trials", type=int, default=12, help="of each search")
    parser.add_argument("--longest", type=float, default=4, help="seconds of training before a kill, at most")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        two = ("--max-concurrent", 2)
        work = Search(arguments.dataset, Path(folder) / "space.yaml", arguments.trials, two)
        for kind in arguments.kinds:
            kill_runs(work, kind, KINDS[kind], arguments.kills, Path(folder), arguments.longest)


if __name__ == "__main__":
    main()
