"""Lose nodes of a cluster at random moments, and check that the result is what was requested.

    python tests/benchmarks/node_kills.py --kinds search training audit scoring head --kills 10

The cluster is several nodes on this machine (``ray_nodes``) whose head has no CPUs; all nodes see the output. While a
search, a training run, an audit or a scoring job works, every process of a random node is killed (SIGKILL), and a new
node joins. The work has to continue by itself. ``head``: the head is lost and everything with it; the driver has to end
by itself, and its work is resumed on a new cluster. The checks are those of ``search_kills``, ``resume_kills``,
``audit_kills`` and ``score_kills``.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from audit_kills import Audit
from common import PATIENCE_S, Work, history, kill_options, named, stage
from ray_nodes import Node, Nodes, running_nodes
from resume_kills import WORKER, Training
from score_images import write_faces
from score_kills import ACTOR, Scoring
from search_kills import TRIAL, Search

APART = 0.1  # of validation accuracy and of loss: two workers get other shards at each start
ROWS, TRIALS, EPOCHS, FILES = 2000, 12, 240, 100_000
TRIAL_EPOCHS = 8  # longer than a process takes to start: otherwise the first process makes all trials
GONE = "WebSocket closed"  # after the head is lost `ray job submit` prints this, and then a traceback of its own


class ComparedTraining(Training):
    """Training that learns what an undisturbed run does."""

    def check(self, run: Path) -> None:
        super().check(run)
        for name in ("validation_accuracy", "validation_loss"):
            found, expected = (history(one)[-1][name] for one in (run, self.plain))
            print(f"{run.name}: {name} {found:.3f}, undisturbed {expected:.3f}", flush=True)
            assert abs(found - expected) <= APART, f"{run}: {name} is {found}, undisturbed {expected}"


class Kind(NamedTuple):
    """What is disturbed.

    Attributes:
        process: text in the command of the processes that do the work.
        nodes: how many.
        longest: seconds from when two nodes work to a kill, at most.
    """

    work: Work
    process: str
    nodes: int
    longest: float


def kinds(folder: Path, dataset: Path) -> dict[str, Kind]:
    """Return what can be disturbed; an undisturbed run has the name that the check compares with."""
    search_options = ("--set", f"training.epochs={TRIAL_EPOCHS}", "--scheduler", "none")
    return {
        "search": Kind(Search(dataset, folder / "space.yaml", TRIALS, search_options), TRIAL, 3, 10),
        "training": Kind(
            ComparedTraining(dataset, folder / "undisturbed-training", ["model.name=lenet"], 2, EPOCHS), WORKER, 2, 40
        ),
        "audit": Kind(Audit(dataset, folder / "undisturbed-audit", 60), TRIAL, 2, 20),
        "scoring": Kind(Scoring(folder / "images", folder / "undisturbed-scoring"), ACTOR, 3, 15),
    }


def busy(nodes: Nodes, kind: Kind) -> list[Node]:
    """Return the nodes, other than the head, on which a process does the work."""
    return [node for node in nodes.workers if named(node.process.pid, kind.process)]


def wait_for_work(nodes: Nodes, kind: Kind, process: subprocess.Popen[bytes], run: Path, done: str = "") -> bool:
    """Wait until two nodes work and progress is no longer ``done``; return False if the driver ends before."""
    deadline = time.monotonic() + 5 * PATIENCE_S
    while process.poll() is None:
        if len(busy(nodes, kind)) >= 2 and kind.work.progress(run) != done:
            return True
        if time.monotonic() > deadline:
            sys.exit(f"no work on two nodes for {5 * PATIENCE_S} s:\n{_log(run).read_text()[-3000:]}")
        time.sleep(0.2)
    return False


def _log(run: Path) -> Path:
    """Return the file with the output of a run's driver."""
    return run.with_name(f"{run.name}.log")


def begin(start: Callable[..., subprocess.Popen[bytes]], kind: Kind, run: Path) -> subprocess.Popen[bytes]:
    """Start or resume a run; ``start`` is a method of ``Nodes``."""
    _, _, module, *arguments = kind.work.command(run)
    with _log(run).open("wb") as log:
        return start(module, *arguments, stdout=log, stderr=subprocess.STDOUT)


def end_of(process: subprocess.Popen[bytes], run: Path) -> int:
    """Wait for the end of a driver, and return its exit code; exit if it hangs or prints a traceback."""
    try:
        process.wait(5 * PATIENCE_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"{run.name} still runs after {5 * PATIENCE_S} s:\n{_log(run).read_text()[-3000:]}")
    if "Traceback" in _log(run).read_text().split(GONE)[0]:
        sys.exit(f"{run.name}: a traceback:\n{_log(run).read_text()[-5000:]}")
    return process.returncode


def finish(process: subprocess.Popen[bytes], run: Path) -> None:
    """Wait for a driver that has to end well."""
    if code := end_of(process, run):
        sys.exit(f"{run.name} ended with {code}:\n{_log(run).read_text()[-5000:]}")


def lose_nodes(nodes: Nodes, name: str, kind: Kind, folder: Path, kills: int) -> None:
    """Lose nodes while the work is done once or several times.

    Every second one is lost only after progress since the previous loss: processes take long to start.
    """
    lost, runs = 0, 0
    while lost < kills:
        run, done = folder / f"{name}-{runs}", ""
        process = begin(nodes.driver, kind, run)
        while lost < kills and wait_for_work(nodes, kind, process, run, done):
            time.sleep(random.uniform(0, kind.longest))
            if process.poll() is None and (victims := busy(nodes, kind)):
                victim = random.choice(victims)
                nodes.lose(victim)
                lost += 1
                done = kind.work.progress(run)
                print(f"  lost {lost}: node {victim.ip}; {done}", flush=True)
                done = done if lost % 2 else ""
                nodes.add(cpus=1)
        finish(process, run)
        kind.work.check(run)
        runs += 1
    print(f"{name}: {lost} nodes lost, {runs} run(s), each ended whole by itself", flush=True)


def lose_heads(works: dict[str, Kind], folder: Path, kills: int) -> None:
    """Lose the head, and resume on a new cluster; each kind of work as a job and as a driver, in turns."""
    turns = cycle((name, job) for job in (True, False) for name in works)
    for number, (name, as_job) in zip(range(kills), turns, strict=False):
        kind, run = works[name], folder / f"head-{number}"
        with running_nodes() as nodes:
            start = nodes.submit if as_job else nodes.driver
            for _ in range(kind.nodes):
                nodes.add(cpus=1)
            process = begin(start, kind, run)
            wait_for_work(nodes, kind, process, run)
            time.sleep(random.uniform(0, kind.longest))
            done, lost = kind.work.progress(run), time.monotonic()
            nodes.lose(nodes.head)
            code = end_of(process, run)
            print(f"  head lost; {done}; {time.monotonic() - lost:.0f} s later exit code {code}", flush=True)
            nodes.restart_head()
            for _ in range(kind.nodes):
                nodes.add(cpus=1)
            finish(begin(start, kind, run), run)
            kind.work.check(run)
    print(f"head: lost {kills} times, each run ended whole with --resume", flush=True)


def main() -> None:
    names = ["search", "training", "audit", "scoring"]
    parser = kill_options(__doc__, [*names, "head"], 10)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no node outlives this
    with tempfile.TemporaryDirectory(prefix="node-kills-") as place:
        folder = Path(place)
        dataset = folder / "dataset"
        subprocess.run(stage("prepare", f"synthetic:{ROWS}", dataset, "--size", 24), check=True, capture_output=True)
        write_faces(folder / "images", FILES)
        works = kinds(folder, dataset)
        for name, kind in works.items():
            if name not in arguments.kinds and "head" not in arguments.kinds:
                continue
            with running_nodes() as nodes:
                for _ in range(kind.nodes):
                    nodes.add(cpus=1)
                if name != "search":
                    plain = folder / f"undisturbed-{name}"
                    finish(begin(nodes.driver, kind, plain), plain)
                if name in arguments.kinds:
                    lose_nodes(nodes, name, kind, folder, arguments.kills)
        if "head" in arguments.kinds:
            lose_heads(works, folder, arguments.kills)


if __name__ == "__main__":
    main()
