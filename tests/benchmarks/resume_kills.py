"""Kill training at random moments, and check that what comes out is what an undisturbed run gives.

    python tests/benchmarks/resume_kills.py --dataset DATASET --kills 20

One worker: the driver is killed (SIGKILL) at a random moment of a run of a few epochs, which then goes on with
``--resume``, until all kills are done. Afterwards the run must have each epoch once, no torn or left-over file, and
weights bit by bit those of a run that nobody disturbed. Two workers: as many times one of them is killed, and must
start again by itself, and as many times the driver. Any difference ends the benchmark with an error. The dataset should
be small: the shorter an epoch, the more of the kills strike while files are being written.
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
from pathlib import Path

import torch
from process_tree import descendants

from fer_ray.inference.checkpoint import load_checkpoint, load_training_state

EPOCHS = 6


def command(arguments: argparse.Namespace, run: Path, workers: int) -> list[str]:
    """Return the command line of a run, to go on where it has begun."""
    parts = [sys.executable, "-m", "fer_ray.train", "--dataset", str(arguments.dataset), "--output", str(run)]
    settings = {
        "model.name": arguments.model,
        "training.epochs": EPOCHS,
        "training.batch_size": 64,
        "training.max_failures": 1000,
        "optimizer.name": "adam",
        "optimizer.learning_rate": 1e-3,
    }
    for path, value in settings.items():
        parts += ["--set", f"{path}={value}"]
    parts += ["--workers", str(workers)]
    return parts + (["--resume"] if run.is_dir() and any(run.iterdir()) else [])


def kill_driver(process: subprocess.Popen[bytes]) -> None:
    """Kill a driver alone, and check that its workers end by themselves: nobody else writes to a resumed run."""
    workers = training_workers(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"a minute after the driver was killed its workers {left} still run"
        time.sleep(0.2)


def training_workers(process: subprocess.Popen[bytes]) -> set[int]:
    """Return the ids of a driver's workers."""
    started = descendants(process.pid)
    return {one.pid for one, name in started.items() if name.startswith("ray::RayTrainWorker")}


def undisturbed(arguments: argparse.Namespace, run: Path, workers: int) -> float:
    """Train once, and return its seconds."""
    began = time.monotonic()
    subprocess.run(command(arguments, run, workers), check=True, capture_output=True)
    check(run, f"undisturbed, {workers} worker(s)")
    return time.monotonic() - began


def kill_drivers(arguments: argparse.Namespace, run: Path, workers: int, seconds: float) -> None:
    """Kill the driver at random moments within the time a run takes, starting anew where one ends before."""
    kills, runs = 0, 1
    while kills < arguments.kills:
        process = subprocess.Popen(command(arguments, run, workers), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=random.uniform(0.3, 1) * seconds)
        except subprocess.TimeoutExpired:
            kill_driver(process)
            kills += 1
            print(f"  kill {kills} of the driver: {finished(run)} of {EPOCHS} epochs written", flush=True)
            continue
        if process.returncode:
            raise SystemExit(said.decode())
        check(run, f"{kills} kills of the driver, {workers} worker(s)")
        runs, run = runs + 1, run.with_name(f"{run.name}-{runs}")
    subprocess.run(command(arguments, run, workers), check=True, capture_output=True)
    check(run, f"{kills} kills of the driver, {workers} worker(s)")


def kill_workers(arguments: argparse.Namespace, run: Path, seconds: float) -> None:
    """Kill one of two workers at random moments after both have started; the run goes on by itself."""
    kills, runs = 0, 1
    while kills < arguments.kills:
        process = subprocess.Popen(command(arguments, run, 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        met = set[int]()
        while kills < arguments.kills and process.poll() is None:
            time.sleep(0.2)
            if len(training_workers(process) - met) < 2:
                continue
            met |= training_workers(process)
            time.sleep(random.uniform(0, 0.5) * seconds)
            if living := training_workers(process):
                os.kill(random.choice(sorted(living)), signal.SIGKILL)
                kills += 1
                print(f"  kill {kills} of a worker: {finished(run)} of {EPOCHS} epochs written", flush=True)
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(said.decode())
        check(run, f"{kills} kills of a worker")
        runs, run = runs + 1, run.with_name(f"{run.name}-{runs}")


def finished(run: Path) -> int:
    """Return the epochs that ``metrics.jsonl`` lists."""
    return len(history(run))


def history(run: Path) -> list[dict[str, float]]:
    """Return what ``metrics.jsonl`` says of each epoch."""
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def check(run: Path, what: str, epochs: int = EPOCHS) -> None:
    """Check a finished run's files."""
    lines = history(run)
    assert [line["epoch"] for line in lines] == list(range(1, epochs + 1)), f"{what}: epochs {lines}"
    best = max(lines, key=lambda line: line["validation_accuracy"])
    assert load_checkpoint(run / "checkpoint").info.epoch == best["epoch"], f"{what}: another best epoch"
    assert load_checkpoint(run / "last").info.epoch == epochs, f"{what}: another last epoch"
    assert load_training_state(run / "last")["history"] == lines, f"{what}: last/ has another history"
    left = [path.name for path in run.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert not left, f"{what}: left over are {left}"
    print(f"{what}: {epochs} epochs, each once, all files whole", flush=True)


def same_weights(first: Path, second: Path) -> bool:
    """Say whether two checkpoints have the same weights, bit by bit."""
    states = [load_checkpoint(folder / "last").model.state_dict() for folder in (first, second)]
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", default="driver,worker,driver2", help="which of these")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        seconds = undisturbed(arguments, plain, 1)
        kinds = arguments.kinds.split(",")
        if "driver" in kinds:
            kill_drivers(arguments, Path(folder) / "driver", 1, seconds)
            for run in Path(folder).glob("driver*"):
                assert same_weights(plain, run), f"{run.name}: other weights than an undisturbed run"
            print("weights equal those of an undisturbed run, bit by bit")
        if {"worker", "driver2"} & {*kinds}:
            seconds = undisturbed(arguments, Path(folder) / "plain2", 2)
        if "worker" in kinds:
            kill_workers(arguments, Path(folder) / "worker", seconds)
        if "driver2" in kinds:
            kill_drivers(arguments, Path(folder) / "two", 2, seconds)


if __name__ == "__main__":
    main()
