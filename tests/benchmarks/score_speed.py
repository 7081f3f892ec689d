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

A rate counts from the moment at which ``--skip`` images were done to the end, so that start-up does not count. The
ceiling is what the cores allow: 1 / (1 / decode + 1 / predict), each measured alone by a process a core, without Ray,
with our own decoder and network. Labels are compared before rates are printed. They may differ where two probabilities
are close, because decoders and batches of other sizes round otherwise.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, options, spread, stage

Labels = dict[str, str]
BATCH, SAMPLE, CEILING_BATCH, CEILING_SECONDS, WATCH_S = 256, 4096, 64, 4, 0.1
AGREE = {"faces": 0.97, "photos": 0.9}  # share of the labels; on photos without faces many are a close call


def network(arguments: argparse.Namespace) -> Callable[[np.ndarray], list[str]]:
    """Return a function from images, uint8, n × 48 × 48, to labels; it notes the progress."""
    from fer_ray.emotions import EMOTIONS
    from fer_ray.inference.predictor import Predictor

    predictor = Predictor(arguments.checkpoint, arguments.tta, batch_size=BATCH)

    def predict(images: np.ndarray) -> list[str]:
        labels = [EMOTIONS[label] for label in predictor.predict(images).labels]
        note(arguments.work, len(labels))
        return labels

    return predict


def note(work: Path, images: int) -> None:
    """Note that images were done now."""
    with (work / "progress").open("a") as file:
        file.write(f"{time.time()} {images}\n")


def labels_of(folder: Path, files: str) -> Labels:
    """Return the labels in Parquet files with a path and a label."""
    import pyarrow.parquet as pq

    rows = [
        row for file in sorted(folder.glob(files)) for row in pq.read_table(file, columns=["path", "label"]).to_pylist()
    ]
    return {row["path"].removeprefix("file://"): row["label"] for row in rows}


def ours(arguments: argparse.Namespace) -> Labels:
    """Run the stage; the parts that it has written show its progress."""
    import pyarrow.parquet as pq

    output, done = arguments.work / "labels", 0
    command = stage("score", arguments.checkpoint, arguments.images, "--output", output, "--tta", arguments.tta)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None or done < arguments.files:
        rows = sum(pq.read_metadata(part).num_rows for part in output.glob("part-*.parquet"))
        if rows > done:
            note(arguments.work, rows - done)
            done = rows
        elif process.poll() is not None:
            raise SystemExit(f"fer-ray score ended with {process.returncode} and {rows:,} rows")
        time.sleep(WATCH_S)
    return labels_of(output, "part-*.parquet")


def loader(arguments: argparse.Namespace) -> Labels:
    """Run the loop over a ``DataLoader``."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    predict, labels = network(arguments), Labels()

    class Faces(Dataset[tuple[torch.Tensor, str]]):
        paths = sorted(str(path) for path in arguments.images.rglob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, str]:
            with Image.open(self.paths[row]) as image:
                return torch.from_numpy(np.array(image.convert("L").resize((48, 48)))), self.paths[row]

    for batch, paths in DataLoader(Faces(), batch_size=BATCH, num_workers=os.cpu_count() or 1):
        labels |= dict(zip(paths, predict(batch.numpy()), strict=True))
    return labels


def ray_data(arguments: argparse.Namespace) -> Labels:
    """Run ``read_images`` and ``map_batches``."""
    import ray

    class Labeller:
        def __init__(self) -> None:
            self.predict = network(arguments)

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
            return {"path": batch["path"], "label": self.predict(np.ascontiguousarray(batch["image"], np.uint8))}

    ray.init("local", log_to_driver=False, include_dashboard=False)
    images = ray.data.read_images(str(arguments.images), mode="L", size=(48, 48), include_paths=True)
    actor = ray.data.ActorPoolStrategy(size=1)
    images.map_batches(Labeller, batch_size=BATCH, compute=actor, num_cpus=1).write_parquet(str(arguments.work / "ray"))
    return labels_of(arguments.work / "ray", "*.parquet")


def daft_images(arguments: argparse.Namespace) -> Labels:
    """Run Daft's pipeline."""
    import daft
    from daft import DataType, Series

    @daft.cls
    class Labeller:
        def __init__(self) -> None:
            self.predict = network(arguments)

        @daft.method.batch(return_dtype=DataType.string(), batch_size=BATCH)
        def __call__(self, images: Series) -> list[str]:
            return self.predict(np.stack([np.asarray(image).reshape(48, 48) for image in images.to_pylist()]))

    files = daft.from_glob_path(f"{arguments.images}/**/*.jpg")
    image = files["path"].download().decode_image(mode="L").convert_image("L").resize(48, 48)
    pictures = files.with_column("image", image)
    labelled = pictures.select("path", Labeller()(pictures["image"]).alias("label"))
    labelled.write_parquet(str(arguments.work / "daft"))
    return labels_of(arguments.work / "daft", "*.parquet")


def ceiling(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure decoding and predicting alone, each by a process a core at the same time."""
    cores, spawn = os.cpu_count() or 1, multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, spawn, _alone_together, (spawn.Barrier(cores),)) as pool:
        rates = list(pool.map(alone, [arguments] * cores))
    decode, predict = (sum(rates_of) for rates_of in zip(*rates, strict=True))
    return {"decode": decode, "predict": predict, "ceiling": 1 / (1 / decode + 1 / predict)}


def _alone_together(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def alone(arguments: argparse.Namespace) -> tuple[float, float]:
    """Return this process's rates of reading and decoding files, and of predicting."""
    import cv2
    import torch

    from fer_ray.images.decode import decode
    from fer_ray.inference.predictor import Predictor

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = sorted(arguments.images.rglob("*.jpg"))
    paths = paths[:: max(1, len(paths) // (SAMPLE if arguments.kind == "faces" else SAMPLE // 16))]
    predictor = Predictor(arguments.checkpoint, arguments.tta, batch_size=CEILING_BATCH)

    def decoded() -> int:
        return len([decode(path.read_bytes(), 48) for path in paths])

    pixels = np.resize(np.stack([decode(path.read_bytes(), 48).pixels for path in paths]), (SAMPLE, 48, 48))

    def predicted() -> int:
        return len(predictor.predict(pixels).labels)

    return _rate(decoded), _rate(predicted)


def _rate(work: Callable[[], int]) -> float:
    work()  # the first call chooses kernels
    _barrier.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < CEILING_SECONDS:
        done += work()
    return done / (time.perf_counter() - began)


CONTESTANTS: dict[str, Callable[[argparse.Namespace], Labels]] = {
    "ours": ours,
    "loader": loader,
    "ray": ray_data,
    "daft": daft_images,
}


def start(name: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[tuple[float, int]], float]:
    """Run a contestant in a process of its own; return its result, its progress and the moment it was started."""
    with tempfile.TemporaryDirectory() as work:
        began = time.time()
        command = [sys.executable, *sys.argv, "--contestant", name, "--work", work]
        ended = subprocess.run(
            [*command, "--images", str(arguments.images), "--checkpoint", str(arguments.checkpoint)],
            capture_output=True,
            text=True,
            env=os.environ | {"RAY_worker_niceness": "0"},
        )
        if ended.returncode:
            sys.exit(f"{name} failed:\n{ended.stderr[-3000:]}")
        progress = Path(work) / "progress"
        lines = [line.split() for line in progress.read_text().splitlines()] if progress.exists() else []
        steps = [(float(moment), int(images)) for moment, images in lines]
        return json.loads((Path(work) / "result.json").read_text()), steps, began


def rate_after(steps: list[tuple[float, int]], skip: int) -> float:
    """Return images/s from the moment at which ``skip`` images were done to the last."""
    done = np.cumsum([images for _, images in steps])
    first = int(np.argmax(done >= skip))
    return float((done[-1] - done[first]) / (steps[-1][0] - steps[first][0]))


def compete(arguments: argparse.Namespace) -> None:
    """Let the contestants take turns, and print their rates."""
    skip = arguments.files // 5 if arguments.skip is None else arguments.skip
    print(
        f"{machine()}; {arguments.files:,} {arguments.kind}, TTA {arguments.tta}; images/s after {skip:,}", flush=True
    )
    rates: dict[str, list[float]] = {name: [] for name in ("ceiling", *arguments.only)}
    for repeat in range(arguments.repeats):
        allowed, _, _ = start("ceiling", arguments)
        rates["ceiling"].append(allowed["ceiling"])
        print(f"{repeat + 1} " + ", ".join(f"{name} {rate:,.0f}" for name, rate in allowed.items()), flush=True)
        labels: dict[str, Labels] = {}
        turn = repeat % len(arguments.only)
        for name in [*arguments.only[turn:], *arguments.only[:turn]]:
            labels[name], steps, began = start(name, arguments)
            rates[name].append(rate_after(steps, skip))
            first = steps[0][0] - began
            print(f"{repeat + 1} {name}: {rates[name][-1]:,.0f} images/s, first after {first:.1f} s", flush=True)
        check(labels, arguments.files, AGREE[arguments.kind])
    for name in rates:
        ratios = [mine / other for mine, other in zip(rates[arguments.only[0]], rates[name], strict=True)]
        if name != arguments.only[0]:
            print(f"{arguments.only[0]} over {name}: {spread(ratios)}")


def check(labels: dict[str, Labels], files: int, agree: float) -> None:
    """Exit unless all did the same work."""
    first = next(iter(labels.values()))
    for name, own in labels.items():
        same = statistics.fmean(own.get(path) == label for path, label in first.items())
        if len(own) != files or same < agree:
            sys.exit(f"{name}: {len(own):,} labels, {files:,} expected; {same:.1%} agree, {agree:.0%} expected")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--kind", choices=list(AGREE), default="faces")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--skip", type=int, help="images before the clock starts; by default a fifth of them")
    parser.add_argument("--dataset", type=Path, help="a prepared dataset to take faces from; without it they are drawn")
    parser.add_argument("--checkpoint", type=Path, help="by default the shipped network")
    parser.add_argument("--tta", default="flip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--images", type=Path, help="a folder made before, instead of a new one")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        result = CONTESTANTS.get(arguments.contestant, ceiling)(arguments)
        (arguments.work / "result.json").write_text(json.dumps(result))
        return
    from score_images import write_faces, write_photos

    from fer_ray.weights import SHIPPED_CHECKPOINT

    arguments.checkpoint = arguments.checkpoint or SHIPPED_CHECKPOINT
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images is None:
            arguments.images = Path(folder) / "images"
            if arguments.kind == "photos":
                write_photos(arguments.images, arguments.files)
            else:
                write_faces(arguments.images, arguments.files, arguments.dataset)
        compete(arguments)


if __name__ == "__main__":
    main()
