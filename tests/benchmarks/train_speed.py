"""Training speed of ``fer-ray train`` beside a bare PyTorch loop on tensors in memory.

    python tests/benchmarks/train_speed.py --dataset DATASET --model fast --repeats 5

Both train the same network on the same rows, at the same precision, batch size and augmentation, in processes of their
own that take turns. The bare loop is what a reader of the PyTorch tutorial would write, with the package's batched
augmentation. A rate is images/s of the training part of the last epoch; the first epoch warms up.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from common import compare, options, train

from fer_ray import models
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.inference.device import LAYOUT, autocast, pick_device, resolve_precision
from fer_ray.inference.network import normalize
from fer_ray.training.augment import augment

EPOCHS = 2
SPACES = Path(__file__).parents[2] / "search_spaces"


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


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; a few thousand rows do")
    parser.add_argument("--model", default="fast")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="config override for both sides")
    parser.add_argument("--bare", action="store_true", help="run the bare loop once and print its images/s")
    arguments = parser.parse_args()
    # Full images from the first epoch on: the bare loop knows no others.
    same_work = [f"model.name={arguments.model}", f"training.epochs={EPOCHS}", "schedule.first_size=1"]
    overrides, config = [*same_work, *arguments.set], SPACES / f"{arguments.model}.yaml"
    if arguments.bare:
        print(bare_loop(PreparedDataset(arguments.dataset), load_config(config, overrides)))
        return

    def ours() -> float:
        return float(train(arguments.dataset, "--config", config, overrides=overrides)[-1]["images_per_s"])

    def bare() -> float:
        command = [sys.executable, *sys.argv, "--bare"]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    compare(("fer-ray train", ours), ("bare loop", bare), arguments.repeats)


if __name__ == "__main__":
    main()
