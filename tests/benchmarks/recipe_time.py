"""Time that the 3-conv recipe of student projects takes on this machine, from part of an epoch.

    python tests/benchmarks/recipe_time.py --dataset DATASET --images 8000

The recipe: the ``cnn3`` network in float32, a plain ``torch.utils.data.DataLoader`` of Python-decoded, torchvision
augmented images, Adam 1e-3, batch 64, 50 epochs. The time of the whole recipe is extrapolated from the images/s of the
part that is run, validation left out, which favours the recipe.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fer_ray import models
from fer_ray.config import ModelConfig
from fer_ray.data.store import PreparedDataset, Split

BATCH, EPOCHS = 64, 50


class Faces(Dataset[tuple[torch.Tensor, int]]):
    """The training split as a tutorial would serve it: one image at a time, through Pillow and torchvision."""

    def __init__(self, split: Split):
        self.split = split
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)),
                transforms.ToTensor(),
                transforms.Normalize(0.5, 0.25),
            ]
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.split.images[index])), int(self.split.labels[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8000, help="images to train on before extrapolating")
    parser.add_argument("--loader-workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    split = PreparedDataset(arguments.dataset).load("train")
    best = max(speed(split, arguments.images, workers) for workers in arguments.loader_workers)
    seconds = EPOCHS * len(split) / best
    print(f"recipe: {best:,.0f} images/s at best, {EPOCHS} epochs of {len(split):,} images take {seconds:,.0f} s")


def speed(split: Split, images: int, workers: int) -> float:
    """Return images/s of training with so many loader processes, start-up left out."""
    torch.manual_seed(0)
    model = models.build(ModelConfig(name="cnn3", dropout=0.5), split.images.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    seen, started = -BATCH, time.perf_counter()
    for batch, labels in DataLoader(Faces(split), BATCH, shuffle=True, num_workers=workers):
        if seen < 0:
            started = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(batch), labels).backward()
        optimizer.step()
        seen += len(labels)
        if seen >= images:
            break
    rate = seen / (time.perf_counter() - started)
    print(f"{workers} loader workers: {rate:,.0f} images/s over {seen:,} images", flush=True)
    return rate


if __name__ == "__main__":
    main()
