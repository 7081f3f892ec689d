"""Lose nodes of a cluster at random moments, and check that what comes out is what was asked for.

    PYTHONPATH=tests python tests/benchmarks/node_kills.py --kinds search training scoring --kills 10

The cluster is several nodes on this machine (``ray_nodes``) whose head has no CPUs, and the outputs are on a disk that
all of them see. While a search, a training run or a scoring job is at work, every process of a random other node is
killed (SIGKILL), and a fresh node joins; the work must go on by itself and end whole. Of the kind ``head`` the head is
lost, and all with it: the driver must end by itself, and go on with ``--resume`` on a new cluster.

Whole is: a search has the asked number of trials, none lost or counted twice; a run has each epoch once, and learns
what an undisturbed one does; a scoring job has one row an input, equal to that of an undisturbed job. Anything else,
a traceback or a hang ends the benchmark with an error.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import ray
import resume_kills
import score_kills
import search_kills
from process_tree import descendants
from ray_nodes import Node, Nodes, running_nodes
from score_images import write_faces

from fer_ray.console.interrupts import interrupt_on_sigterm
from fer_ray.prepare import prepare

PATIENCE_S = 600
APART = 0.1  # of validation accuracy and of loss: two workers get other shards at each start
ROWS, TRIALS, EPOCHS, FILES = 2000, 12, 240, 100_000
GONE = "WebSocket closed"  # what `ray job submit` shows, before frames of its own, when the head is lost
TRIAL_EPOCHS = 8  # longer than a process takes to start: else the first one has done all trials before


class Work(NamedTuple):
    """What is disturbed.

    Attributes:
        command: of a run, to go on where it has begun: the module and its arguments.
        doing: the name of the processes that do it.
        nodes: that do it.
        longest: seconds from when two of these do it to a kill, at most.
        count: what of a run is done, in words.
        check: that a run that has ended is whole.
        compared: whether that needs an undisturbed run.
    """

    command: Callable[[Path], list[object]]
    doing: str
    nodes: int
    longest: float
    count: Callable[[Path], str]
    check: Callable[[Path], None]
    compared: bool = True


def search_work(folder: Path, dataset: Path) -> Work:
    space = folder / "space.yaml"
    space.write_text(search_kills.SPACE)
    arguments = argparse.Namespace(dataset=dataset, trials=TRIALS)

    def command(run: Path) -> list[object]:
        parts = ["fer_ray.tune", "--dataset", dataset, "--space", space, "--trials", TRIALS, "--output", run]
        parts += ["--set", f"training.epochs={TRIAL_EPOCHS}", "--scheduler", "none"]
        return [*parts, *["--resume"] * (run / "study.json").is_file()]

    check = partial(search_kills.check, arguments, what="search")
    return Work(command, "ray::ImplicitFunc", 3, 10, search_kills.state_counts, lambda run: check(run), compared=False)


def training_work(folder: Path, dataset: Path) -> Work:
    settings = {"model.name": "lenet", "training.epochs": EPOCHS, "training.max_failures": 1000}

    def command(run: Path) -> list[object]:
        parts = ["fer_ray.train", "--dataset", dataset, "--workers", 2, "--output", run]
        for path, value in settings.items():
            parts += ["--set", f"{path}={value}"]
        return [*parts, *["--resume"] * (run.is_dir() and any(run.iterdir()))]

    def check(run: Path) -> None:
        resume_kills.check(run, "training", EPOCHS)
        metrics = [resume_kills.history(one)[-1] for one in (run, folder / "undisturbed-training")]
        for name in ("validation_accuracy", "validation_loss"):
            found, expected = (one[name] for one in metrics)
            print(f"training: {name} {found:.3f}, undisturbed {expected:.3f}", flush=True)
            if abs(found - expected) > APART:
                sys.exit(f"{run}: {name} is {found}, undisturbed {expected}")

    return Work(
        command, "ray::RayTrainWorker", 2, 40, lambda run: f"{resume_kills.finished(run)} of {EPOCHS} epochs", check
    )


def scoring_work(folder: Path, dataset: Path) -> Work:
    inputs = folder / "images"
    write_faces(inputs, FILES, dataset)

    def command(run: Path) -> list[object]:
        return ["fer_ray.score", inputs, "--output", run, *["--resume"] * run.is_dir()]

    def check(run: Path) -> None:
        score_kills.check(run, score_kills.rows(folder / "undisturbed-scoring"))

    return Work(command, "_ScoringActor", 3, 15, lambda run: f"{len(list(run.glob('_pieces/[0-9]*')))} pieces", check)


WORKS = {"search": search_work, "training": training_work, "scoring": scoring_work}


def busy(nodes: Nodes, work: Work) -> list[Node]:
    """Return the nodes, other than the head, on which there is a process that does the work."""
    return [
        node
        for node in nodes.workers
        if any(work.doing in line.split(" --")[0] for line in descendants(node.process.pid).values())
    ]


def wait_for_work(nodes: Nodes, work: Work, process: subprocess.Popen[bytes], run: Path, done: str = "") -> bool:
    """Wait until several nodes work and more than ``done`` is done, or the driver ends; return whether the previous."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        if len(busy(nodes, work)) >= 2 and work.count(run) != done:
            return True
        if time.monotonic() > deadline:
            sys.exit(f"no work on two nodes for {PATIENCE_S} s:\n{log_of(run).read_text()[-3000:]}")
        time.sleep(0.2)
    return False


def log_of(run: Path) -> Path:
    """Return the file that has what the driver of a run says."""
    return run.with_name(f"{run.name}.log")


def begin(start: Callable[..., subprocess.Popen[bytes]], work: Work, run: Path) -> subprocess.Popen[bytes]:
    """Start a run, or go on with it; ``start`` is a method of ``Nodes``."""
    with log_of(run).open("wb") as said:
        return start(*work.command(run), stdout=said, stderr=subprocess.STDOUT)


def end_of(process: subprocess.Popen[bytes], run: Path, what: str) -> int:
    """Wait for a driver's end, and return its exit code; stop where it hangs, or shows frames of code."""
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"{what}: still runs after {PATIENCE_S} s:\n{log_of(run).read_text()[-3000:]}")
    said = log_of(run).read_text()
    if "Traceback" in said.split(GONE)[0]:
        sys.exit(f"{what}: a traceback:\n{said[-5000:]}")
    return process.returncode


def undisturbed(nodes: Nodes, name: str, work: Work, folder: Path) -> None:
    """Do the work once without a kill."""
    run, began = folder / f"undisturbed-{name}", time.monotonic()
    if end_of(begin(nodes.driver, work, run), run, f"{name}, undisturbed"):
        sys.exit(log_of(run).read_text())
    work.check(run)
    print(f"{name}: undisturbed {time.monotonic() - began:.0f} s", flush=True)


def lose_nodes(nodes: Nodes, name: str, work: Work, folder: Path, kills: int) -> None:
    """Lose nodes, so many, while the work is done once or several times.

    Every other one is lost only once the work goes on after the previous loss: processes that start take long.
    """
    struck, runs, began = 0, 0, time.monotonic()
    while struck < kills:
        run, before, done = folder / f"{name}-{runs}", struck, ""
        process = begin(nodes.driver, work, run)
        while struck < kills and wait_for_work(nodes, work, process, run, done):
            time.sleep(random.uniform(0, work.longest))
            if process.poll() is None and (victims := busy(nodes, work)):
                lost = random.choice(victims)
                nodes.lose(lost)
                struck += 1
                print(f"  kill {struck}: node {lost.ip}, {work.count(run)}", flush=True)
                done = work.count(run) if struck % 2 else ""
                nodes.add(cpus=1)
        if code := end_of(process, run, f"{name}, {struck - before} nodes lost"):
            sys.exit(f"{name} ended with {code}:\n{log_of(run).read_text()[-5000:]}")
        work.check(run)
        runs += 1
    took = time.monotonic() - began
    print(f"{name}: {struck} nodes lost, {runs} run(s) in {took:.0f} s, each ended whole by itself", flush=True)


def lose_heads(works: dict[str, Work], folder: Path, kills: int) -> None:
    """Lose the head, so many times, and go on with what ran on a new cluster; as a driver and as a job in turns."""
    turns = cycle((name, job) for job in (True, False) for name in works)
    for number, (name, as_job) in zip(range(kills), turns, strict=False):
        work, run = works[name], folder / f"head-{number}"
        with running_nodes() as nodes:
            start = nodes.submit if as_job else nodes.driver
            for _ in range(work.nodes):
                nodes.add(cpus=1)
            process = begin(start, work, run)
            wait_for_work(nodes, work, process, run)
            time.sleep(random.uniform(0, work.longest))
            done = work.count(run)
            nodes.lose(nodes.head)
            lost = time.monotonic()
            code = end_of(process, run, f"{name}, head lost")
            said = (log_of(run).read_text().strip().splitlines() or [""])[-1]
            print(f"  head lost with {done}; {time.monotonic() - lost:.0f} s later exit {code}: {said}", flush=True)
            nodes.restart_head()
            for _ in range(work.nodes):
                nodes.add(cpus=1)
            if end_of(begin(start, work, run), run, f"{name}, gone on with"):
                sys.exit(log_of(run).read_text()[-5000:])
            work.check(run)
    if kills:
        print(f"head: lost {kills} times, each ended whole with --resume", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=[*WORKS, "head"], default=[*WORKS, "head"])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="node-kills-") as place:
        folder = Path(place)
        dataset = folder / "dataset"
        prepare(f"synthetic:{ROWS}", dataset, size=24)
        ray.shutdown()
        interrupt_on_sigterm()  # so that no node outlives this
        heads = arguments.kills if "head" in arguments.kinds else 0
        names = [name for number, name in enumerate(WORKS) if name in arguments.kinds or number < heads]
        works = {name: WORKS[name](folder, dataset) for name in names}
        for name, work in works.items():
            with running_nodes() as nodes:
                for _ in range(work.nodes):
                    nodes.add(cpus=1)
                if work.compared:
                    undisturbed(nodes, name, work, folder)
                if name in arguments.kinds:
                    lose_nodes(nodes, name, work, folder, arguments.kills)
        lose_heads(works, folder, heads)


if __name__ == "__main__":
    main()
