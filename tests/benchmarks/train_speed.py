"""Training speed of ``fer-ray train`` beside a bare PyTorch loop on tensors in memory.

    python tests/benchmarks/train_speed.py --dataset DATASET --model fast --repeats 5

Both train the same network on the same rows, at the same precision, batch size and augmentation, in processes of their
own that take turns. The bare loop below is what a reader of the PyTorch tutorial would write, with the package's
batched augmentation. A ratio is the project's images/s over the bare loop's, of the training part of the last epoch;
the first epoch warms up. Prints the median of the ratios and their spread.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from fer_ray import models
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.inference.device import LAYOUT, autocast, pick_device, resolve_precision
from fer_ray.inference.network import normalize
from fer_ray.training.augment import augment

EPOCHS = 2


def bare_loop(dataset: PreparedDataset, config: Config) -> float:
    """Return images/s of the last epoch of a bare loop."""
    device = pick_device()
    dtype = resolve_precision(config.training.precision, device)
    split = dataset.load("train")
    images, labels = torch.tensor(split.images, device=device), torch.tensor(split.labels, device=device)
    model = models.build(config.model, dataset.info.size).to(device).to(memory_format=LAYOUT)
    settings = config.optimizer
    if settings.name == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), settings.learning_rate / 10, settings.momentum, nesterov=True, weight_decay=1e-3
        )
    generator = torch.Generator(device).manual_seed(0)
    for _ in range(EPOCHS):
        started = time.perf_counter()
        model.train()
        for rows in torch.randperm(len(images), device=device).split(config.training.batch_size):
            batch = augment(normalize(images[rows], dataset.info.mean, dataset.info.std), config.augment, generator)
            with autocast(device, dtype):
                logits = model(batch.contiguous(memory_format=LAYOUT))
            loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=config.loss.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        speed = len(images) / (time.perf_counter() - started)
    return speed


def project(dataset: Path, recipe: Path, overrides: list[str]) -> float:
    """Return images/s of the last epoch of ``fer-ray train``, from its ``metrics.jsonl``."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "fer_ray.train", "--config", str(recipe)]
        command += ["--dataset", str(dataset), "--output", str(run)]
        for override in overrides:
            command += ["--set", override]
        subprocess.run(command, check=True, capture_output=True)
        lines = (run / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["images_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; a few thousand rows do")
    parser.add_argument("--model", default="fast")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="config override for both sides")
    parser.add_argument("--bare", action="store_true", help="run the bare loop once and print its images/s")
    arguments = parser.parse_args()
    # Full images from the first epoch on: the bare loop knows no others.
    same_work = [f"model.name={arguments.model}", f"training.epochs={EPOCHS}", "schedule.first_size=1"]
    overrides = [*same_work, *arguments.set]
    recipe = Path("search_spaces") / f"{arguments.model}.yaml"
    config = load_config(recipe, overrides)
    if arguments.bare:
        print(bare_loop(PreparedDataset(arguments.dataset), config))
        return
    bare_command = [sys.executable, *sys.argv, "--bare"]
    pairs = []
    for repeat in range(arguments.repeats):
        bare = float(subprocess.run(bare_command, check=True, capture_output=True, text=True).stdout)
        ours = project(arguments.dataset, recipe, overrides)
        pairs.append((ours, bare))
        print(
            f"{repeat + 1}: fer-ray train {ours:,.0f} images/s, bare loop {bare:,.0f}, ratio {ours / bare:.3f}",
            flush=True,
        )
    ratios = [ours / bare for ours, bare in pairs]
    print(
        f"{arguments.model}: ratio median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}),"
        f" n = {len(ratios)}; {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}, batch {config.training.batch_size},"
        f" {resolve_precision(config.training.precision, pick_device())}"
    )


if __name__ == "__main__":
    main()
