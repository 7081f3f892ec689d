"""Ways to label a folder of images, and what a machine's cores allow, for ``score_speed.py``, which describes them."""

import argparse
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

BATCH, SAMPLE, CEILING_BATCH, CEILING_SECONDS = 256, 4096, 64, 4


def network(arguments: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images, uint8, n × 48 × 48, to labels."""
    from fer_ray.inference.predictor import Predictor

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

    from fer_ray.emotions import EMOTIONS
    from fer_ray.score import score

    output = arguments.work / "labels"
    with _watched(output, Progress(arguments.progress)):
        score(arguments.checkpoint, [arguments.images], output, tta=arguments.tta)
    labels = dict[str, int]()
    for part in sorted(output.glob("part-*.parquet")):
        rows = pq.read_table(part, columns=["path", "label"]).to_pydict()
        labels |= dict(zip(rows["path"], map(EMOTIONS.index, rows["label"]), strict=True))
    return labels


@contextmanager
def _watched(output: Path, progress: Progress) -> Iterator[None]:
    from fer_ray.scoring.job import JOB_FILE
    from fer_ray.scoring.manifest import read_chunks
    from fer_ray.scoring.parts import finished, lay_out
    from fer_ray.storage.output import Output

    over = threading.Event()

    def watch() -> None:
        while not (output / JOB_FILE).exists():
            if over.wait(0.1):
                return
        folder, before = Output.at(output), 0
        layout = lay_out(read_chunks(folder))
        while before < sum(part.files for part in layout):
            written, pieces = finished(folder, layout, "parquet")
            done = sum(
                chunk.files
                for part in layout
                for number, chunk in part.chunks.items()
                if number in pieces or part.number in written
            )
            if done > before:
                progress.note(done - before)
                before = done
            elif over.wait(0.1):
                return

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
    from fer_ray.images.image_files import list_files, read_file
    from fer_ray.inference.predictor import Predictor

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = list(list_files([arguments.images]))
    paths = paths[:: max(1, len(paths) // (SAMPLE if arguments.kind == "faces" else SAMPLE // 16))]
    predictor = Predictor(arguments.checkpoint, arguments.tta, batch_size=CEILING_BATCH)

    def decoded() -> int:
        return len([decode(read_file(path), 48) for path in paths])

    pixels = np.resize(np.stack([decode(read_file(path), 48).pixels for path in paths]), (SAMPLE, 48, 48))

    def predicted() -> int:
        return len(predictor.predict(pixels).labels)

    return _rate(decoded), _rate(predicted)


def _rate(work: Callable[[], int]) -> float:
    work()  # the first chooses kernels
    _barrier.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < CEILING_SECONDS:
        done += work()
    return done / (time.perf_counter() - began)


CONTESTANTS = {"ours": ours, "loader": loader, "ray": ray_data, "daft": daft_images}
