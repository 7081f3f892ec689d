"""Kill a scoring job at random moments, and check that every input has exactly one row, equal to an undisturbed job's.

    python tests/benchmarks/score_kills.py --kills 20 [--files 20000]

Of each kind as many kills (SIGKILL): of the driver, of the raylet (the process of Ray that a machine's work hangs on),
and of an actor. A job whose driver or raylet was killed goes on with ``--resume``; one that lost its actor must go on
by itself. Some files are broken, some are named twice. Any difference ends the benchmark with an error.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from process_tree import descendants
from score_images import write_faces

PATIENCE_S = 120
TOLERANCE = 0.02  # of probabilities: batches of another size round otherwise in bfloat16
LEFT_IN_THE_END = {
    ".lock",
    "_job.json",
    "_manifest-0000.parquet",
    "_samples.parquet",
    "provenance.json",
    "summary.html",
    "summary.json",
}


def command(inputs: list[Path], output: Path) -> list[str]:
    """Return the command line of a job, to go on where it has begun."""
    parts = [sys.executable, "-m", "fer_ray.score", *inputs, "--output", output, "--max-error-rate", 1]
    return [*map(str, parts), *["--resume"] * output.is_dir()]


def victims(process: subprocess.Popen[bytes], kind: str) -> list[int]:
    """Return the processes of a job that a kind of kill may strike; none yet where it hasn't got so far."""
    if kind == "driver":
        return [process.pid]
    name = {"raylet": "/raylet/raylet", "actor": "_ScoringActor"}[kind]
    return [one.pid for one, line in descendants(process.pid).items() if name in line.split(" --")[0]]


def disturb(
    inputs: list[Path], output: Path, kind: str, longest: float, left: int, met: dict[psutil.Process, str]
) -> tuple[int, int]:
    """Start or resume a job and kill at random moments; return the kills and the exit code, and note its processes.

    Of a driver or raylet one, of actors several. It dies by the kill, or ends.
    """
    process = subprocess.Popen(command(inputs, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    kills = 0
    while process.poll() is None and kills < left:
        met |= descendants(process.pid)
        if not victims(process, "actor"):  # before, there is little to lose
            time.sleep(0.05)
            continue
        time.sleep(random.uniform(0, longest))
        met |= descendants(process.pid)
        if struck := victims(process, kind):
            os.kill(random.choice(struck), signal.SIGKILL)
            kills += 1
            done = len(list((output / "_pieces").glob("[0-9]*")))
            print(f"  kill of the {kind} with {done} pieces there", flush=True)
            if kind != "actor":
                break
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"the job still runs {PATIENCE_S} s after a kill of the {kind}")
    assert process.stderr
    said = process.stderr.read().decode()
    if "Traceback" in said:
        sys.exit(f"a traceback after a kill of the {kind}:\n{said[-3000:]}")
    return kills, process.returncode


def rows(output: Path) -> pa.Table:
    """Return all rows of an output."""
    return pa.concat_tables([pq.read_table(part) for part in sorted(output.glob("part-*.parquet"))])


def check(output: Path, expected: pa.Table) -> None:
    """Stop unless an output equals that of an undisturbed job."""
    found = rows(output)
    for column in ("path", "status", "error"):
        if not found[column].equals(expected[column]):
            sys.exit(f"{output}: column {column} differs: {len(found):,} rows, {len(expected):,} expected")
    apart = pc.max(pc.abs(pc.subtract(found["confidence"], expected["confidence"]))).as_py()
    if apart > TOLERANCE:
        sys.exit(f"{output}: confidence differs by {apart:.4f}")
    left = {path.name for path in output.iterdir() if not path.name.startswith("part-")}
    if left != LEFT_IN_THE_END:
        sys.exit(f"{output}: of what should be there and what is, only one has {sorted(left ^ LEFT_IN_THE_END)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--longest", type=float, default=15, help="seconds up to the next kill")
    parser.add_argument("--kinds", nargs="+", default=["driver", "raylet", "actor"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_faces(work / "images", arguments.files, None)
        for number in range(0, arguments.files, 500):
            (work / "images" / f"{number % 100:02d}" / f"{number:07d}.jpg").write_bytes(b"no image")
        inputs = [work / "images", work / "images" / "07"]
        subprocess.run(command(inputs, work / "undisturbed"), check=True, capture_output=True)
        expected = rows(work / "undisturbed")
        for kind in arguments.kinds:
            kills, jobs, met = 0, 0, dict[psutil.Process, str]()
            while kills < arguments.kills:
                output, code = work / f"{kind}-{jobs}", None
                while code != 0:
                    more, code = disturb(inputs, output, kind, arguments.longest, arguments.kills - kills, met)
                    kills += more
                check(output, expected)
                jobs += 1
            _, alive = psutil.wait_procs(list(met), timeout=PATIENCE_S)
            if alive:
                sys.exit(f"left over after kills of the {kind}: {[one.cmdline() for one in alive]}")
            print(f"{kind}: {kills} kills, {jobs} jobs, each equal to the undisturbed one", flush=True)


if __name__ == "__main__":
    main()
