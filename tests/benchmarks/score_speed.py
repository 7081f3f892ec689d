"""How fast ``fer-ray score`` is: beside what its cores allow, and beside three other ways to label the same files.

    python tests/benchmarks/score_speed.py --kind faces --files 100000 --repeats 3 [--dataset DATASET]
    python tests/benchmarks/score_speed.py --kind photos --files 10000 --repeats 1

All label the same files with the same checkpoint, precision and test-time augmentation, in turns, each in a process of
its own that has the whole machine:

- ``ours``: ``fer-ray score`` with its defaults;
- ``loader``: a loop over a PyTorch ``DataLoader`` as its documentation shows: a Dataset that opens each file with
  Pillow, as many worker processes as cores, batches of 256;
- ``ray``: ``ray.data.read_images`` and ``map_batches`` with an actor, as Ray's guide to images shows, batches of 256;
- ``daft``: ``from_glob_path``, ``download``, ``decode_image``, ``resize`` and a class UDF in batches, as Daft's guides
  to images and to UDFs show.

A rate counts from the moment at which ``--skip`` images were done to the end, so that nobody's start-up is in it; it is
read from what each says of its progress. The ceiling is what the cores allow: 1 / (1 / decode + 1 / predict), each
measured alone by a process a core, without Ray, with our own decoder and network. Labels are compared before rates are
printed; they may differ where two probabilities are close, as decoders and batches of other sizes round otherwise.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from score_contestants import CONTESTANTS, ceiling

AGREE = {"faces": 0.97, "photos": 0.9}  # share of the labels; on photos without faces many are a close call


def run_one(arguments: argparse.Namespace) -> None:
    """Run a contestant in this process and write what came of it."""
    run = CONTESTANTS.get(arguments.contestant, ceiling)
    (arguments.work / "result.json").write_text(json.dumps(run(arguments)))


def start(name: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[tuple[float, int]], float]:
    """Run a contestant in a process of its own; return its result, its progress and the moment it was started."""
    with tempfile.TemporaryDirectory() as work:
        progress = Path(work) / "progress"
        progress.touch()
        began = time.time()
        command = [sys.executable, *sys.argv, "--contestant", name, "--work", work, "--progress", str(progress)]
        ended = subprocess.run(
            [*command, "--images", str(arguments.images), "--checkpoint", str(arguments.checkpoint)],
            capture_output=True,
            text=True,
            env=os.environ | {"RAY_worker_niceness": "0"},
        )
        if ended.returncode:
            sys.exit(f"{name} failed:\n{ended.stderr[-3000:]}")
        noted = [line.split() for line in progress.read_text().splitlines()]
        steps = [(float(moment), int(images)) for moment, images in noted]
        return json.loads((Path(work) / "result.json").read_text()), steps, began


def rate_after(steps: list[tuple[float, int]], skip: int) -> float:
    """Return images/s from the moment at which ``skip`` images were done to the last."""
    done = np.cumsum([images for _, images in steps])
    first = int(np.argmax(done >= skip))
    return float((done[-1] - done[first]) / (steps[-1][0] - steps[first][0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["faces", "photos"], default="faces")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--skip", type=int, help="images before the clock starts; by default a fifth of them")
    parser.add_argument("--dataset", type=Path, help="a prepared dataset to take faces from; without it they are drawn")
    parser.add_argument("--checkpoint", type=Path, help="by default the network of the package")
    parser.add_argument("--tta", default="flip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--images", type=Path, help="a folder made before, instead of a new one")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        run_one(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        compete(arguments, Path(folder))


def compete(arguments: argparse.Namespace, folder: Path) -> None:
    """Let the contestants take turns, and print their rates."""
    from score_images import write_faces, write_photos

    from fer_ray.weights import SHIPPED_CHECKPOINT

    arguments.checkpoint = arguments.checkpoint or SHIPPED_CHECKPOINT
    if arguments.images is None:
        arguments.images = folder / "images"
        make = (lambda: write_photos(arguments.images, arguments.files)) if arguments.kind == "photos" else None
        (make or (lambda: write_faces(arguments.images, arguments.files, arguments.dataset)))()
    skip = arguments.files // 5 if arguments.skip is None else arguments.skip
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {arguments.files:,} {arguments.kind},"
    )
    print(f"TTA {arguments.tta}; images/s after the first {skip:,}", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in ("ceiling", *arguments.only)}
    for repeat in range(arguments.repeats):
        allowed, _, _ = start("ceiling", arguments)
        rates["ceiling"].append(allowed["ceiling"])
        said = ", ".join(f"{name} {rate:,.0f}" for name, rate in allowed.items())
        print(f"{repeat + 1} {said}", flush=True)
        labels: dict[str, dict[str, int]] = {}
        for place in range(len(arguments.only)):
            name = arguments.only[(repeat + place) % len(arguments.only)]
            labels[name], steps, began = start(name, arguments)
            rates[name].append(rate_after(steps, skip))
            first = steps[0][0] - began
            print(f"{repeat + 1} {name}: {rates[name][-1]:,.0f} images/s, first batch after {first:.1f} s", flush=True)
        check(labels, arguments.files, AGREE[arguments.kind])
    for name in ("ceiling", *arguments.only[1:]):
        ratios = [mine / other for mine, other in zip(rates["ours"], rates[name], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"ours over {name}: {statistics.median(ratios):.2f} {spread}, n = {len(ratios)}")


def check(labels: dict[str, dict[str, int]], files: int, agree: float) -> None:
    """Stop unless all did the same work."""
    for name, own in labels.items():
        if len(own) != files:
            sys.exit(f"{name}: {len(own):,} labels, {files:,} expected")
        same = statistics.fmean(own[path] == label for path, label in labels["ours"].items())
        if same < agree:
            sys.exit(f"{name}: {same:.1%} of its labels are ours, {agree:.0%} expected")


if __name__ == "__main__":
    main()
