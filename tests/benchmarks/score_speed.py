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
measured alone on all cores, without Ray, with our own decoder and network. Labels are compared before rates are
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
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CONTESTANTS = ("ours", "loader", "ray", "daft")
BATCH, SAMPLE, CEILING_BATCH = 256, 4096, 64
AGREE = 0.97  # share of the labels


def network(arguments: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images, uint8, n × 48 × 48, to labels."""
    from fer_ray.learning.predictor import Predictor

    predictor = Predictor(arguments.checkpoint, arguments.tta, batch_size=BATCH)
    return lambda images: predictor.predict(images).labels


class Progress:
    """A file with a line for each batch: the moment, and how many images it had."""

    def __init__(self, file: Path):
        self.file = file

    def note(self, images: int) -> None:
        with self.file.open("a") as file:
            file.write(f"{time.time()} {images}\n")


def ours(arguments: argparse.Namespace) -> dict[str, int]:
    """Run the stage; its pieces and parts on disk tell how far it is."""
    import pyarrow.parquet as pq

    from fer_ray.data.manifest import CHUNK_FILES
    from fer_ray.data.parts import PART_CHUNKS
    from fer_ray.emotions import EMOTIONS
    from fer_ray.score import score

    output = arguments.work / "labels"
    with _watched(output, arguments, CHUNK_FILES, CHUNK_FILES * PART_CHUNKS):
        score(arguments.checkpoint, [arguments.images], output, tta=arguments.tta)
    labels = dict[str, int]()
    for part in sorted(output.glob("part-*.parquet")):
        rows = pq.read_table(part, columns=["path", "label"]).to_pydict()
        labels |= dict(zip(rows["path"], map(EMOTIONS.index, rows["label"]), strict=True))
    return labels


@contextmanager
def _watched(output: Path, arguments: argparse.Namespace, of_a_piece: int, of_a_part: int) -> Iterator[None]:
    over, progress = threading.Event(), Progress(arguments.progress)

    def watch() -> None:
        before = 0
        while not over.wait(0.1):
            pieces = len(list((output / "_pieces").glob("[0-9]*")))
            done = min(arguments.files, pieces * of_a_piece + len(list(output.glob("part-*"))) * of_a_part)
            if done > before:
                progress.note(done - before)
                before = done

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def loader(arguments: argparse.Namespace) -> dict[str, int]:
    """Run the loop over a ``DataLoader``."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    predict, progress, labels = network(arguments), Progress(arguments.progress), dict[str, int]()

    class Faces(Dataset[tuple[torch.Tensor, str]]):
        paths = sorted(str(path) for path in arguments.images.rglob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, str]:
            with Image.open(self.paths[row]) as image:
                return torch.from_numpy(np.array(image.convert("L").resize((48, 48)))), self.paths[row]

    for batch, paths in DataLoader(Faces(), batch_size=BATCH, num_workers=os.cpu_count() or 1):
        labels |= dict(zip(paths, predict(batch.numpy()).tolist(), strict=True))
        progress.note(len(paths))
    return labels


def ray_data(arguments: argparse.Namespace) -> dict[str, int]:
    """Run ``read_images`` and ``map_batches``."""
    import pyarrow.parquet as pq
    import ray

    class Labeller:
        def __init__(self) -> None:
            self.predict, self.progress = network(arguments), Progress(arguments.progress)

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
            labels = self.predict(np.ascontiguousarray(batch["image"], np.uint8))
            self.progress.note(len(labels))
            return {"path": batch["path"], "label": labels}

    ray.init("local", log_to_driver=False, include_dashboard=False)
    images = ray.data.read_images(str(arguments.images), mode="L", size=(48, 48), include_paths=True)
    labelled = images.map_batches(Labeller, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1)
    output = arguments.work / "ray"
    labelled.write_parquet(str(output))
    rows = pq.read_table(output).to_pydict()
    return dict(zip(rows["path"], rows["label"], strict=True))


def daft_images(arguments: argparse.Namespace) -> dict[str, int]:
    """Run Daft's pipeline."""
    import daft
    from daft import DataType, Series

    progress = Progress(arguments.progress)

    @daft.cls
    class Labeller:
        def __init__(self) -> None:
            self.predict = network(arguments)

        @daft.method.batch(return_dtype=DataType.int64(), batch_size=BATCH)
        def __call__(self, images: Series) -> list[int]:
            pixels = np.stack([np.asarray(image).reshape(48, 48) for image in images.to_pylist()])
            progress.note(len(pixels))
            return self.predict(pixels).tolist()

    files = daft.from_glob_path(f"{arguments.images}/**/*.jpg")
    pictures = files.with_column(
        "image", files["path"].download().decode_image(mode="L").convert_image("L").resize(48, 48)
    )
    labelled = pictures.select("path", Labeller()(pictures["image"]).alias("label"))
    output = arguments.work / "daft"
    labelled.write_parquet(str(output))
    rows = daft.read_parquet(f"{output}/*.parquet").to_pydict()
    return {path.removeprefix("file://"): label for path, label in zip(rows["path"], rows["label"], strict=True)}


def ceiling(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure decoding and predicting alone, each on all cores."""
    import cv2
    import torch

    from fer_ray.data.disk import list_files, read_file
    from fer_ray.data.images import decode
    from fer_ray.learning.predictor import Predictor

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cores = os.cpu_count() or 1
    paths = list(list_files([arguments.images]))
    paths = paths[:: max(1, len(paths) // (SAMPLE if arguments.kind == "faces" else SAMPLE // 16))]
    predictor = Predictor(arguments.checkpoint, arguments.tta, batch_size=CEILING_BATCH)
    with ThreadPoolExecutor(cores) as pool:
        began = time.perf_counter()
        batches = [paths[start::cores] for start in range(cores)]
        pixels = np.concatenate(
            list(pool.map(lambda some: np.stack([decode(read_file(path), 48).pixels for path in some]), batches))
        )
        decoded = len(pixels) / (time.perf_counter() - began)
        pixels = np.resize(pixels, (SAMPLE, 48, 48))
        starts = range(0, SAMPLE, CEILING_BATCH)
        rates = []
        for _ in range(2):  # the first chooses kernels
            began = time.perf_counter()
            list(pool.map(lambda start: predictor.predict(pixels[start : start + CEILING_BATCH]), starts))
            rates.append(SAMPLE / (time.perf_counter() - began))
    return {"decode": decoded, "predict": max(rates), "ceiling": 1 / (1 / decoded + 1 / max(rates))}


def run_one(arguments: argparse.Namespace) -> None:
    """Run a contestant in this process and write what came of it."""
    ways: dict[str, Callable[[argparse.Namespace], Any]] = {
        "ours": ours,
        "loader": loader,
        "ray": ray_data,
        "daft": daft_images,
        "ceiling": ceiling,
    }
    (arguments.work / "result.json").write_text(json.dumps(ways[arguments.contestant](arguments)))


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
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
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
        check(labels, arguments.files)
    for name in ("ceiling", *arguments.only[1:]):
        ratios = [mine / other for mine, other in zip(rates["ours"], rates[name], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"ours over {name}: {statistics.median(ratios):.2f} {spread}, n = {len(ratios)}")


def check(labels: dict[str, dict[str, int]], files: int) -> None:
    """Stop unless all did the same work."""
    for name, own in labels.items():
        if len(own) != files:
            sys.exit(f"{name}: {len(own):,} labels, {files:,} expected")
        same = statistics.fmean(own[path] == label for path, label in labels["ours"].items())
        if same < AGREE:
            sys.exit(f"{name}: {same:.1%} of its labels are ours, {AGREE:.0%} expected")


if __name__ == "__main__":
    main()
