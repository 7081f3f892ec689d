"""Run every stage on drawn faces, in about a minute on two cores, and show the results on one page."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["demo", *sys.argv[1:]])

import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
from matplotlib import cbook

from fer_ray.config.options import DemoOptions
from fer_ray.console.text import duration
from fer_ray.evaluate import evaluate
from fer_ray.export import export
from fer_ray.prepare import prepare
from fer_ray.report import report
from fer_ray.reporting.evaluation_tables import describe as describe_evaluation
from fer_ray.score import score
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.storage.local import local_path
from fer_ray.storage.output import open_output
from fer_ray.train import train
from fer_ray.training.run_folder import describe_epoch
from fer_ray.tune import tune

_SPACES = ("lenet", "cnn3")  # the fastest ones to train
_BATCH = "training.batch_size=32"  # a thousand drawn faces need smaller batches than FER-2013
_PHOTOS_SEED = 1  # differs from the dataset's seed, so no photo is one of its faces
_PHOTO_SIZE = 96
_PORTRAIT = "grace_hopper.jpg"
"""A photo of Grace Hopper by the US Navy, which comes with matplotlib."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does."""

    faces: int = 1500  # drawn ones in the dataset; four fifths are for training
    image_size: int = 32  # side of the prepared images in pixels
    trials: int = 4
    trial_epochs: int = 4
    epochs: int = 8  # of the final training
    photos: int = 120  # to score; broken files come on top


def demo(output: Path | str = DemoOptions.output, *, size: DemoSize | None = None) -> Path:
    """Prepare, tune, train, evaluate, score, export and report on drawn faces, and print the command of each step.

    Args:
        output: the folder to write; absent or empty.
        size: how much to do; None for about a minute on two cores.

    Returns:
        The page of all results.

    Raises:
        UsageError: the output folder is in use.
    """
    size, began = size or DemoSize(), time.monotonic()
    root = Path(output).expanduser()  # not absolute: commands are printed with it
    with open_output(local_path(output)):
        _learn(root, size)
        _apply(root, size)
        folders = [root / name for name in ("run", "evaluation", "search", "scores", "dataset")]
        _step("8/8 Show all results on one page", "report", *folders, "--output", root / "report", "--title", "Demo")
        page = Path(report(folders, root / "report", title="Demo").page)
    print(f"\nDone in {duration(time.monotonic() - began)}. Open this page in a browser:\n{page}", flush=True)
    return page


def _learn(root: Path, size: DemoSize) -> None:
    """Prepare, search and train."""
    source, dataset, search, run = f"synthetic:{size.faces}", root / "dataset", root / "search", root / "run"
    title = f"1/8 Draw {size.faces:,} faces and prepare them as a dataset"
    _step(title, "prepare", source, dataset, "--size", size.image_size)
    prepare(source, dataset, size=size.image_size)

    changes = [_BATCH, f"training.epochs={size.trial_epochs}"]
    options = [option for name in _SPACES for option in ("--space", name)]
    options += [option for change in changes for option in ("--set", change)]
    title = f"2/8 Search: {size.trials} trials of {' and '.join(_SPACES)}"
    _step(title, "tune", "--dataset", dataset, *options, "--trials", size.trials, "--output", search)
    best = tune(dataset, _SPACES, search, trials=size.trials, overrides=changes).best
    print(f"best: trial {best.number}, {best.space}, validation accuracy {best.value:.2%}")

    config, epochs, title = search / "best.yaml", f"training.epochs={size.epochs}", "3/8 Train the best one longer"
    _step(title, "train", "--dataset", dataset, "--config", config, "--set", epochs, "--output", run)
    print(f"best {describe_epoch(train(dataset, config, run, overrides=[epochs]).best)}")


def _apply(root: Path, size: DemoSize) -> None:
    """Evaluate the trained network, label photos with it, label a portrait with the network of the package, export."""
    checkpoint, dataset, evaluation = root / "run" / "checkpoint", root / "dataset", root / "evaluation"
    title = "4/8 Evaluate it on the test split, with and without mirrored views"
    _step(title, "evaluate", checkpoint, "--dataset", dataset, "--output", evaluation)
    print(describe_evaluation(evaluate(checkpoint, dataset, evaluation).evaluation))

    photos, scores = root / "photos", root / "scores"
    broken = _write_photos(photos, size.photos)
    rate = math.ceil(100 * broken / (size.photos + broken)) / 100
    title = f"5/8 Label a folder of {size.photos} photos and {broken} broken files"
    _step(title, "score", checkpoint, photos, "--output", scores, "--max-error-rate", rate)
    score(checkpoint, [photos], scores, max_error_rate=rate)

    # Drawn faces teach nothing about real ones, so this network is not the trained one.
    photo = Path(cbook.get_sample_data(_PORTRAIT, asfileobj=False))
    title = "6/8 Find and label the face in a photo, with the network that comes with fer_ray"
    _step(title, "score", photo, "--faces", "detect")
    score(None, [photo], faces="detect")

    models = root / "onnx"
    _step("7/8 Write the trained network for programs without PyTorch", "export", checkpoint, "--output", models)
    export(checkpoint, models)
    print(f"Models and how to use them: {models / 'README.md'}")


def _write_photos(folder: Path, count: int) -> int:
    """Write drawn faces as PNG and JPEG files, and some broken files; return the number of broken files."""
    folder.mkdir()
    images, _ = synthetic_faces(count, _PHOTOS_SEED)
    photos = [cv2.resize(image, (_PHOTO_SIZE, _PHOTO_SIZE), interpolation=cv2.INTER_CUBIC) for image in images]
    for number, photo in enumerate(photos):
        cv2.imwrite(str(folder / f"face-{number:04}.{'png' if number % 2 else 'jpg'}"), photo)
    broken = {
        "empty.jpg": b"",
        "no image.png": b"this file only claims to be an image\n",
        "torn header.jpg": (folder / "face-0000.jpg").read_bytes()[:40],
        "notes.txt": b"not an image either\n",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    return len(broken)


def _step(title: str, *command: object) -> None:
    """Print the title of a step and the command that does the same."""
    print(f"\n{title}\n    fer-ray {shlex.join(map(str, command))}", flush=True)


def command(options: DemoOptions) -> None:
    """Run the demo."""
    demo(options.output)
