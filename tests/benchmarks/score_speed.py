"""Speed of ``fer-ray score`` beside a bare PyTorch DataLoader loop on the same files, both as whole processes.

    python tests/benchmarks/score_speed.py --repeats 5 [--checkpoint RUN/checkpoint] [--dataset DATASET] [--files N]

Writes N JPEGs of 48 × 48 pixels, from the prepared dataset or else drawn, and 60 broken files of 12 kinds. Both sides
then label them with the same checkpoint (by default a ``fast`` network with random weights), precision and TTA, in
turns. The bare loop is what a reader of the PyTorch documentation would write: a Dataset that opens each file with
Pillow, worker processes, batches of 256, a loop over the loader; its network has its kernels in channels-last order as
ours does. A ratio is the bare process's seconds over ours, start of Python and Ray included. Before ratios are printed,
the rows are counted and the labels of all images compared.
"""

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH = 256
WORKERS = 2
BROKEN_OF_EACH = 5
TIES = 0.01  # labels may differ where two probabilities lie this close, as the networks run in other batch sizes


def bare_loop(checkpoint: Path, images: Path, output: Path, tta: str) -> None:
    """Label the images and write path and probabilities."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from fer_ray.learning.checkpoint import load_checkpoint
    from fer_ray.learning.device import LAYOUT, autocast, pick_device, resolve_precision

    model, info = load_checkpoint(checkpoint).model, load_checkpoint(checkpoint).info

    class Faces(Dataset[tuple[torch.Tensor, str]]):
        paths = sorted(str(path) for path in images.rglob("*") if path.is_file())

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, str]:
            try:
                with Image.open(self.paths[row]) as image:
                    grey = np.asarray(image.convert("L").resize((info.size, info.size)), np.float32)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                return torch.full((1, info.size, info.size), torch.nan), self.paths[row]
            return torch.from_numpy((grey / 255 - info.mean) / info.std)[None], self.paths[row]

    device = pick_device()
    dtype = resolve_precision("auto", device)
    model = model.to(device).to(memory_format=LAYOUT)
    paths: list[str] = []
    probabilities = []
    with torch.inference_mode(), autocast(device, dtype):
        for batch, names in DataLoader(Faces(), batch_size=BATCH, num_workers=WORKERS):
            batch = batch.to(device)
            views = [batch, batch.flip(3)] if tta == "flip" else [batch]
            views = [(model(view).float() / info.temperature).softmax(1) for view in views]
            probabilities.append(torch.stack(views).mean(0).cpu())
            paths += names
    np.savez(output, paths=np.array(paths), probabilities=torch.cat(probabilities).numpy())


def write_images(folder: Path, count: int, dataset: Path | None) -> None:
    """Write ``count`` JPEGs over 20 folders."""
    import cv2

    from fer_ray.data.store import PreparedDataset
    from fer_ray.data.synthetic import synthetic_faces

    if dataset is None:
        faces = synthetic_faces(min(count, 2000), seed=0)[0]
    else:
        prepared = PreparedDataset(dataset)
        faces = np.concatenate([prepared.load(split).images for split in prepared.info.splits])
    for number in range(count):
        file = folder / f"{number % 20:02d}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".jpg", faces[number % len(faces)])[1].tobytes())


def break_some(folder: Path) -> int:
    """Add files of 12 kinds that give no picture, and return how many."""
    from PIL import Image

    whole = next(path for path in folder.rglob("*.jpg") if path.stat().st_size > 100).read_bytes()
    stream = io.BytesIO()
    Image.new("L", (48, 48), 99).save(stream, "PNG")
    png = stream.getvalue()
    bomb = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    kinds: dict[str, Callable[[Path], object]] = {
        "empty.jpg": lambda path: path.touch(),
        "text.jpg": lambda path: path.write_text("a note"),
        "page.jpg": lambda path: path.write_text("<!doctype html><title>404</title>"),
        "noise.jpg": lambda path: path.write_bytes(np.random.default_rng(0).bytes(900)),
        "half.jpg": lambda path: path.write_bytes(whole[: len(whole) // 2]),
        "start.jpg": lambda path: path.write_bytes(whole[:20]),
        "half.png": lambda path: path.write_bytes(png[: len(png) // 2]),
        "bomb.png": lambda path: path.write_bytes(bomb),
        "zip.jpg": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        "zeros.jpg": lambda path: path.write_bytes(bytes(1000)),
        "dangling.jpg": lambda path: path.symlink_to("nowhere"),
        "pipe.jpg": os.mkfifo,
    }
    for number in range(BROKEN_OF_EACH):
        for name, make in kinds.items():
            make(folder / f"{number:02d}" / f"broken-{name}")
    return BROKEN_OF_EACH * len(kinds)


def random_checkpoint(folder: Path) -> Path:
    """Write a ``fast`` network with random weights."""
    import torch

    from fer_ray.config import Config
    from fer_ray.learning.checkpoint import CheckpointInfo, save_checkpoint
    from fer_ray.models import build

    config = Config()
    torch.manual_seed(0)
    info = CheckpointInfo(config=config, mean=0.5, std=0.25, size=48, epoch=1, metrics={}, dataset_fingerprint="none")
    save_checkpoint(folder, build(config.model, 48).state_dict(), info)
    return folder


def compare(output: Path, bare: Path, files: int, broken: int) -> None:
    """Stop unless both sides did the same work."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.concat_tables([pq.read_table(file) for file in sorted(output.glob("part-*.parquet"))]).to_pylist()
    bad = sum(row["status"] != "ok" for row in rows)
    if (len(rows), bad) != (files + broken, broken):
        sys.exit(f"fer-ray score: {len(rows)} rows, {bad} failed; {files + broken} and {broken} expected")
    from fer_ray.emotions import EMOTIONS

    with np.load(bare) as loaded:
        others = dict(zip(loaded["paths"].tolist(), loaded["probabilities"], strict=True))
    for row in rows:
        if row["status"] == "ok":
            other = others[row["path"]]
            margin = np.sort(other)[-1] - np.sort(other)[-2]
            if EMOTIONS[int(other.argmax())] != row["label"] and margin > TIES:
                sys.exit(f"{row['path']}: label {row['label']}, the bare loop says {other}")


def measure(
    work: Path, images: Path, checkpoint: Path, tta: str, files: int, broken: int
) -> tuple[float, float, float]:
    """Return seconds of the bare process, of ours, and our images/s from the first batch on."""
    output, bare = work / "out", work / "bare.npz"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, __file__, "--bare", str(bare), "--images", str(images)]
    started = time.perf_counter()
    subprocess.run([*command, "--checkpoint", str(checkpoint), "--tta", tta], check=True, capture_output=True)
    bare_seconds = time.perf_counter() - started
    command = [sys.executable, "-m", "fer_ray.score", str(checkpoint), str(images), "--output", str(output)]
    started = time.perf_counter()
    subprocess.run([*command, "--tta", tta, "--max-error-rate", "1"], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    compare(output, bare, files, broken)
    summary = json.loads((output / "summary.json").read_text())
    return bare_seconds, seconds, summary["images_per_s_from_first_batch"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--dataset", type=Path, help="a prepared dataset to take the images from")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tta", default="flip", choices=["none", "flip"])
    parser.add_argument("--bare", type=Path, help="run the bare loop once and write its output here")
    parser.add_argument("--images", type=Path, help="for the bare loop: the folder")
    arguments = parser.parse_args()
    if arguments.bare:
        bare_loop(arguments.checkpoint, arguments.images, arguments.bare, arguments.tta)
        return
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "images", arguments.files, arguments.dataset)
        broken = break_some(work / "images")
        checkpoint = arguments.checkpoint or random_checkpoint(work / "checkpoint")
        for repeat in range(arguments.repeats):
            bare, ours, rate = measure(work, work / "images", checkpoint, arguments.tta, arguments.files, broken)
            ratios.append(bare / ours)
            print(
                f"{repeat + 1}: fer-ray score {ours:.1f} s ({rate:,.0f} images/s from the first batch on), bare"
                f" {bare:.1f} s, ratio {ratios[-1]:.3f}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    print(
        f"{arguments.files + broken:,} files, TTA {arguments.tta}: ratio median {statistics.median(ratios):.3f}"
        f" ({min(ratios):.3f} to {max(ratios):.3f}), n = {len(ratios)}; {os.cpu_count()} cores"
        f" {platform.processor() or platform.machine()}"
    )


if __name__ == "__main__":
    main()
