"""Time that the 3-conv recipe of student projects takes on this machine, from part of an epoch.

    python tests/benchmarks/recipe_time.py --dataset DATASET --images 8000

The recipe: three convolutions in float32, a plain ``torch.utils.data.DataLoader`` of Python-decoded, torchvision
augmented images, Adam 1e-3, batch 64, 50 epochs. The time of the whole recipe is extrapolated from the images/s of the
part that is run, without validation, which favours the recipe.

``--repeats N`` takes turns with ``fer-ray train --config search_spaces/cnn3.yaml``: the same network, batch size and
kinds of augmentation. fer-ray chooses its precision; ``--set training.precision=float32`` is the recipe's.
"""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from common import compare, options, train
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fer_ray.dataset.store import PreparedDataset, Split

BATCH, EPOCHS = 64, 50
CONFIG = Path(__file__).parents[2] / "search_spaces" / "cnn3.yaml"


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


def network() -> nn.Module:
    """Return the three convolutions and three dense layers as tutorials write them."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(128 * 6 * 6, 256), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 7))


def speed(split: Split, images: int, workers: int) -> float:
    """Return images/s of training with a number of loader processes, start-up left out."""
    torch.manual_seed(0)
    model = network()
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
    return seen / (time.perf_counter() - started)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8000, help="images to train on before extrapolating")
    parser.add_argument("--loader-workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=0, help="turns of the recipe and of fer-ray train")
    parser.add_argument("--set", action="append", default=[], help="config override of fer-ray train")
    arguments = parser.parse_args()
    split = PreparedDataset(arguments.dataset).load("train")
    speeds = {workers: speed(split, arguments.images, workers) for workers in arguments.loader_workers}
    for workers, rate in speeds.items():
        print(f"{workers} loader workers: {rate:,.0f} images/s", flush=True)
    best = max(speeds, key=lambda workers: speeds[workers])
    seconds = EPOCHS * len(split) / speeds[best]
    print(f"recipe: {EPOCHS} epochs of {len(split):,} images take {seconds:,.0f} s", flush=True)
    overrides = ["training.epochs=2", *arguments.set]

    def ours() -> float:
        return float(train(arguments.dataset, "--config", CONFIG, overrides=overrides)[-1]["images_per_s"])

    if arguments.repeats:
        recipe = ("recipe", lambda: speed(split, arguments.images, best))
        compare(("fer-ray train", ours), recipe, arguments.repeats)


if __name__ == "__main__":
    main()
