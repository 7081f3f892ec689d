"""What the benchmarks share: stages as processes, kills at random moments, comparisons in turns, and drawn faces."""

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import psutil
from process_tree import descendants

PATIENCE_S = 120
DRIVER, RAYLET = "the driver", "/raylet/raylet"


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a script's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def kill_options(doc: str | None, kinds: Iterable[str], kills: int = 20) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks that kill; ``kills`` is a default."""
    parser, names = options(doc), list(kinds)
    parser.add_argument("--kills", type=int, default=kills, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=names, default=names)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser


def machine() -> str:
    """Return the processor, its cores and the version of PyTorch."""
    processor = platform.processor() or platform.machine()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores, PyTorch {version('torch')}"


def stage(name: str, *arguments: object) -> list[str]:
    """Return the command line of a stage of fer_ray."""
    return [sys.executable, "-m", f"fer_ray.{name}", *map(str, arguments)]


def train(dataset: Path, *arguments: object, overrides: list[str]) -> list[dict[str, Any]]:
    """Run ``fer-ray train`` in a fresh folder, and return the metrics of each epoch."""
    settings = [part for override in overrides for part in ("--set", override)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = stage("train", "--dataset", dataset, "--output", run, *arguments, *settings)
        subprocess.run(command, check=True, capture_output=True)
        return history(run)


def history(run: Path) -> list[dict[str, Any]]:
    """Return what ``metrics.jsonl`` of a run says of each epoch; nothing if the file does not exist."""
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def compare(ours: tuple[str, Callable[[], float]], other: tuple[str, Callable[[], float]], repeats: int) -> None:
    """Measure two rates in turns, and print the median of their ratios and the spread."""
    ratios = []
    for repeat in range(repeats):
        first, second = ours[1](), other[1]()
        ratios.append(first / second)
        line = f"{ours[0]} {first:,.0f} images/s, {other[0]} {second:,.0f}, ratio {ratios[-1]:.3f}"
        print(f"{repeat + 1}: {line}", flush=True)
    print(f"{ours[0]} over {other[0]}: {spread(ratios)}; {machine()}")


def spread(values: list[float]) -> str:
    """Return the median of values, the lowest and the highest of them, and how many there are."""
    return f"median {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}), n = {len(values)}"


def named(pid: int, text: str) -> list[int]:
    """Return the ids of the processes below a process that have a text in their command, before its options."""
    return [one.pid for one, command in descendants(pid).items() if text in command.split(" --")[0]]


class Work(Protocol):
    """Runs of a stage that can be killed and resumed."""

    def is_at_work(self, pid: int, run: Path) -> bool:
        """Say whether kills may begin in a run whose driver has this process id."""

    def command(self, run: Path) -> list[str]:
        """Return the command line that starts a run, or resumes it."""

    def progress(self, run: Path) -> str:
        """Describe how far a run is."""

    def check(self, run: Path) -> None:
        """Raise AssertionError unless a run that has ended is whole."""


def resume(run: Path) -> list[str]:
    """Return ``--resume`` if a run has begun."""
    return ["--resume"] * (run.is_dir() and any(run.iterdir()))


def kill_runs(work: Work, kind: str, victim: str, kills: int, folder: Path, longest: float) -> None:
    """Kill (SIGKILL) at random moments while runs are made; check each run, and that no process is left.

    A run whose driver or raylet (the process of Ray on which a machine's work depends) was killed is resumed. A run
    that lost another process has to continue by itself.

    Args:
        kind: name for the folders and messages.
        victim: text in the command of the processes to kill; ``DRIVER`` for the stage itself.
        longest: seconds of work before a kill, at most.
    """
    met, killed, runs = dict[psutil.Process, str](), 0, 0
    while killed < kills:
        run, code = folder / f"{kind}-{runs}", -1
        while code:
            struck, code, log = _disturb(work, victim, kills - killed, run, longest, met)
            killed += struck
            if code and not (struck and victim in (DRIVER, RAYLET)):
                sys.exit(f"{kind}: the run ended with {code}:\n{log}")
            if victim == RAYLET and "Traceback" in log:
                sys.exit(f"{kind}: a traceback after a kill:\n{log}")
        work.check(run)
        print(f"{kind}: run {runs + 1} is whole, {killed} kills", flush=True)
        runs += 1
    wait_for_end(met)


def _disturb(
    work: Work, victim: str, most: int, run: Path, longest: float, met: dict[psutil.Process, str]
) -> tuple[int, int, str]:
    """Make or resume a run with kills; return their number, the exit code and the end of the log."""
    kills = 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(work.command(run), stdout=subprocess.DEVNULL, stderr=log)
        while process.poll() is None and kills < most:
            if not work.is_at_work(process.pid, run):
                time.sleep(0.1)
                continue
            time.sleep(random.uniform(0, longest))
            met |= descendants(process.pid)
            pids = [process.pid] if victim == DRIVER else named(process.pid, victim)
            if process.poll() is None and pids:
                os.kill(random.choice(pids), signal.SIGKILL)
                kills += 1
                print(f"  killed: {victim}; {work.progress(run)}", flush=True)
                if victim in (DRIVER, RAYLET):
                    break
        try:
            process.wait(PATIENCE_S if kills and victim == RAYLET else None)
        except subprocess.TimeoutExpired:
            process.kill()
            sys.exit(f"{PATIENCE_S} s after its raylet was killed the run still hangs")
        # Ray's agents write to no run, and outlive a killed driver by a minute.
        wait_for_end({one: line for one, line in met.items() if "agent" not in line.split(" --")[0].lower()})
        log.seek(0)
        return kills, process.returncode, log.read().decode()[-5000:]


def wait_for_end(met: dict[psutil.Process, str]) -> None:
    """Wait until processes have ended, and exit with a message if one does not."""
    deadline = time.monotonic() + PATIENCE_S
    while left := [line for one, line in met.items() if _runs(one)]:
        if time.monotonic() > deadline:
            sys.exit(f"{PATIENCE_S} s after the run these processes still exist: {left}")
        time.sleep(0.5)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def names(folder: Path) -> set[str]:
    """Return the names of a finished run's files, to compare with those of an undisturbed run."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
