"""Kill a search at random moments, and check that what comes out is what was asked for.

    python tests/benchmarks/search_kills.py --dataset DATASET --kills 20

Of each kind as many kills (SIGKILL): of the driver, of the raylet (the process of Ray that a machine's work hangs on),
and of a trial's own process. A search whose driver or raylet was killed goes on with ``--resume``; one that lost a
trial's process must go on by itself. Each search that ends must have the asked number of trials, none counted twice,
none left RUNNING or waiting, the epochs of a continued trial beginning with those that were there before, ``best/``
equal to the study's best trial and loadable, and no file or process left over. Any difference ends the benchmark with
an error. The dataset should be small: the shorter an epoch, the more of the kills strike while something is written.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
import psutil
import pyarrow.parquet as pq
from process_tree import descendants

from fer_ray.inference.checkpoint import load_checkpoint

LEFT_IN_THE_END = {"study.db", "study.json", "trials.parquet", "best.yaml", "report.html", "provenance.json", "best"}
SPACE = """
model: {name: cnn3, dropout: 0.5}
optimizer: {name: adam, learning_rate: 0.001}
schedule: {first_size: 1}
training: {epochs: 3, batch_size: 64, max_failures: 1000}
search:
  model.dropout: {uniform: [0.2, 0.7]}
  optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
"""
PATIENCE_S = 120


def victims(process: subprocess.Popen[bytes], kind: str) -> list[int]:
    """Return the processes of a search that a kind of kill may strike; none yet where it hasn't got so far."""
    if kind == "driver":
        return [process.pid]
    name = {"raylet": "/raylet/raylet", "trial": "ray::ImplicitFunc"}[kind]
    return [one.pid for one, command in descendants(process.pid).items() if name in command.split(" --")[0]]


def command(arguments: argparse.Namespace, space: Path, run: Path) -> list[str]:
    """Return the command line of a search, to go on where it has begun."""
    parts = [sys.executable, "-m", "fer_ray.tune", "--dataset", arguments.dataset, "--space", space, "--output", run]
    parts += ["--trials", arguments.trials, "--max-concurrent", 2]
    return [*map(str, parts), *["--resume"] * (run / "study.json").is_file()]


def disturb(
    arguments: argparse.Namespace, space: Path, run: Path, kind: str, left: int, met: dict[psutil.Process, str]
) -> tuple[int, bool]:
    """Start or resume a search and kill at a random moment once it trains; return the kills and whether it ended.

    Of trials several are killed. A search that has ended is checked: the next one needs a folder of its own. ``met``
    gains the processes of this one.
    """
    process = subprocess.Popen(command(arguments, space, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    kills = 0
    while process.poll() is None and kills < left:
        met.update(descendants(process.pid))
        if not (run / "study.json").is_file() or not victims(process, "trial"):
            time.sleep(0.1)
            continue
        time.sleep(random.uniform(0, arguments.longest))
        met.update(descendants(process.pid))
        if struck := victims(process, kind):
            os.kill(random.choice(struck), signal.SIGKILL)
            kills += 1
            print(f"  kill of the {kind}: {state_counts(run)}", flush=True)
            if kind != "trial":
                break
    said = finish(process, kind if kills else "none")
    wait_for_the_end_of({one: command for one, command in met.items() if not is_agent(command)})
    if process.returncode == 0:
        check(arguments, run, f"{kind} killed")
    elif kind == "trial" or not kills:
        raise SystemExit(f"the search ended with {process.returncode}:\n{said}")
    elif kind == "raylet":
        assert process.returncode == 1 and "--resume" in said and "Traceback" not in said, said
    return kills, process.returncode == 0


def finish(process: subprocess.Popen[bytes], kind: str) -> str:
    """Wait for the end of a search, and return what it said."""
    try:
        return process.communicate(timeout=PATIENCE_S if kind == "raylet" else None)[1].decode()
    except subprocess.TimeoutExpired:
        process.kill()
        raise SystemExit(f"{PATIENCE_S} s after its raylet was killed the search still hangs") from None


def wait_for_the_end_of(met: dict[psutil.Process, str]) -> None:
    """Check that the processes of a search end with it: nobody else writes to a resumed one."""
    deadline = time.monotonic() + PATIENCE_S
    while left := [command for one, command in met.items() if runs(one)]:
        assert time.monotonic() < deadline, f"{PATIENCE_S} s after the search these still run: {left}"
        time.sleep(0.5)


def is_agent(command: str) -> bool:
    """Whether this is one of Ray's agents on a node, which write to no search and outlive a killed driver a minute."""
    return "agent" in command.split(" --")[0].lower()


def runs(process: psutil.Process) -> bool:
    """Whether a process runs still, and is not one that has ended and that nobody has asked about."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def load(run: Path) -> optuna.Study:
    name = json.loads((run / "study.json").read_text())["study"]
    return optuna.load_study(study_name=name, storage=f"sqlite:///{run / 'study.db'}")


def state_counts(run: Path) -> str:
    counts = Counter(trial.state.name for trial in load(run).trials)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def check(arguments: argparse.Namespace, run: Path, what: str) -> None:
    """Check a finished search's study and folder."""
    trials = load(run).trials
    counted = [trial for trial in trials if trial.state.is_finished() and "interrupted" not in trial.user_attrs]
    assert len(counted) == arguments.trials, f"{what}: {len(counted)} trials count, not {arguments.trials}"
    assert all(trial.state.is_finished() for trial in trials), f"{what}: {state_counts(run)}"
    assert len({tuple(trial.params.values()) for trial in counted}) == len(counted), f"{what}: one counted twice"
    continued = [trial for trial in trials if "continues" in trial.user_attrs]
    formers = [trial.user_attrs["continues"] for trial in continued]
    assert len(set(formers)) == len(formers), f"{what}: one continued twice: {formers}"
    lost = {trial.number for trial in trials if "interrupted" in trial.user_attrs and trial.params}
    assert lost <= set(formers), f"{what}: {lost - set(formers)} interrupted and not continued"
    for trial, number in zip(continued, formers, strict=True):
        previous, now = trials[number].intermediate_values, trial.intermediate_values
        assert trial.params == trials[number].params, f"{what}: trial {trial.number} continues another one"
        assert all(now.get(epoch, value) == value for epoch, value in previous.items()), (
            f"{what}: {previous}, then {now}"
        )
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    info = load_checkpoint(run / "best").info
    assert info.metrics["validation_accuracy"] == best.value, f"{what}: best/ isn't of trial {best.number}"
    assert info.config.model.dropout == best.params["model.dropout"], f"{what}: best/ isn't of trial {best.number}"
    assert pq.read_table(run / "trials.parquet").num_rows == len(trials), f"{what}: rows of trials.parquet"
    left = {path.name for path in run.iterdir()} - LEFT_IN_THE_END - {".lock"}
    assert not left, f"{what}: left over are {left}"
    gone_on = sum(bool(trials[number].intermediate_values) for number in formers)
    print(
        f"{what}: {len(counted)} trials count, {len(formers)} were interrupted and continued ({gone_on} of these after"
        f" an epoch or more); {state_counts(run)}; best/ is whole",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--trials", type=int, default=12, help="of each search")
    parser.add_argument("--longest", type=float, default=4, help="seconds of training before a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", default="driver,raylet,trial", help="which of these")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space.yaml"
        space.write_text(SPACE)
        for kind in arguments.kinds.split(","):
            kills, searches, run, met = 0, 1, Path(folder) / kind, dict[psutil.Process, str]()
            while kills < arguments.kills:
                struck, ended = disturb(arguments, space, run, kind, arguments.kills - kills, met)
                kills += struck
                if ended:
                    searches += 1
                    run = run.with_name(f"{kind}-{searches}")
            if run.is_dir():
                disturb(arguments, space, run, kind, 0, met)
            wait_for_the_end_of(met)
            print(f"{kills} kills of the {kind}: every search ended whole", flush=True)


if __name__ == "__main__":
    main()
