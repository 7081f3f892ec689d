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
import numpy as np
from matplotlib import cbook

from fer_ray.config.files import load_config
from fer_ray.console.text import duration
from fer_ray.evaluate import evaluate
from fer_ray.options import DemoOptions
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
"""A photo of the US Navy that comes with matplotlib."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does.

    Attributes:
        faces: drawn faces in the dataset; four fifths are for training.
        image_size: side of the prepared images, in pixels.
        trials: number of trials in the search.
        trial_epochs: epochs of each trial.
        epochs: epochs of the final training.
        photos: image files to score; broken files come on top.
    """

    faces: int = 1500
    image_size: int = 32
    trials: int = 4
    trial_epochs: int = 4
    epochs: int = 8
    photos: int = 120


@dataclass(frozen=True)
class DemoResult:
    """A finished demo.

    Attributes:
        page: the report.
        accuracy: validation accuracy of the trained network, 0 to 1.
    """

    page: Path
    accuracy: float


def demo(output: Path | str = DemoOptions.output, *, size: DemoSize | None = None) -> DemoResult:
    """Prepare, tune, train, evaluate, score and report on drawn faces, and print the command of each step.

    Args:
        output: the folder to write; absent or empty.
        size: how much to do; None for about a minute on two cores.

    Raises:
        UsageError: the output folder is in use.
    """
    size, began = size or DemoSize(), time.monotonic()
    root = Path(output).expanduser()  # not absolute: commands are printed with it
    with open_output(local_path(output)):
        accuracy = _learn(root, size)
        _apply(root, size)
        folders = [root / name for name in ("run", "evaluation", "search", "scores", "dataset")]
        _step("7/7 Show all results on one page", "report", *folders, "--output", root / "report", "--title", "Demo")
        page = report(folders, root / "report", title="Demo").page
    print(f"\nDone in {duration(time.monotonic() - began)}. Open this page in a browser:\n{page}", flush=True)
    return DemoResult(Path(page), accuracy)


def _learn(root: Path, size: DemoSize) -> float:
    """Prepare, search and train; return the validation accuracy."""
    source, dataset, search, run = f"synthetic:{size.faces}", root / "dataset", root / "search", root / "run"
    title = f"1/7 Draw {size.faces:,} faces and prepare them as a dataset"
    _step(title, "prepare", source, dataset, "--size", size.image_size)
    prepare(source, dataset, size=size.image_size)

    changes = [_BATCH, f"training.epochs={size.trial_epochs}"]
    options = [option for name in _SPACES for option in ("--space", name)]
    options += [option for change in changes for option in ("--set", change)]
    title = f"2/7 Search: {size.trials} trials of {' and '.join(_SPACES)}"
    _step(title, "tune", "--dataset", dataset, *options, "--trials", size.trials, "--output", search)
    best = tune(dataset, _SPACES, search, trials=size.trials, overrides=changes).best
    print(f"best: trial {best.number}, {best.space}, validation accuracy {best.value:.2%}")

    config, epochs, title = search / "best.yaml", f"training.epochs={size.epochs}", "3/7 Train the best one longer"
    _step(title, "train", "--dataset", dataset, "--config", config, "--set", epochs, "--output", run)
    trained = train(dataset, load_config(config, [epochs]), run).best
    print(f"best {describe_epoch(trained)}")
    return trained["validation_accuracy"]


def _apply(root: Path, size: DemoSize) -> None:
    """Evaluate the trained network, label photos with it, and a portrait with the network of the package."""
    checkpoint, dataset, evaluation = root / "run" / "checkpoint", root / "dataset", root / "evaluation"
    title = "4/7 Evaluate it on the test split, with and without mirrored views"
    _step(title, "evaluate", checkpoint, "--dataset", dataset, "--output", evaluation)
    print(describe_evaluation(evaluate(checkpoint, dataset, evaluation).evaluation))

    photos, scores = root / "photos", root / "scores"
    broken = write_photos(photos, size.photos)
    rate = math.ceil(100 * broken / (size.photos + broken)) / 100
    title = f"5/7 Label a folder of {size.photos} photos and {broken} broken files"
    _step(title, "score", checkpoint, photos, "--output", scores, "--max-error-rate", rate)
    score(checkpoint, [photos], scores, max_error_rate=rate)

    # Drawn faces teach nothing about real ones, so this network is not the trained one.
    photo, labels = Path(cbook.get_sample_data(_PORTRAIT, asfileobj=False)), root / "portrait-label"
    title = "6/7 Label the face in a photo of Grace Hopper; without CHECKPOINT, by the network that comes with fer_ray"
    _step(title, "score", photo, "--faces", "detect", "--output", labels)
    score(None, [photo], labels, faces="detect")


def write_photos(folder: Path, count: int) -> int:
    """Write drawn faces as PNG and JPEG files, and some broken files; return the number of broken files.

    Args:
        folder: the folder to write; absent.
        count: number of images.
    """
    folder.mkdir()
    images, _ = synthetic_faces(count, _PHOTOS_SEED)
    for number, image in enumerate(images):
        photo = cv2.resize(image, (_PHOTO_SIZE, _PHOTO_SIZE), interpolation=cv2.INTER_CUBIC)
        suffix = ".png" if number % 2 else ".jpg"
        (folder / f"face-{number:04}{suffix}").write_bytes(_encode(photo, suffix))
    broken = {
        "empty.jpg": b"",
        "no image.png": b"this file only claims to be an image\n",
        "torn header.jpg": _encode(images[0], ".jpg")[:40],
        "notes.txt": b"not an image either\n",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    return len(broken)


def _step(title: str, *command: object) -> None:
    """Print the title of a step and the command that does the same."""
    print(f"\n{title}\n    fer-ray {shlex.join(map(str, command))}", flush=True)


def _encode(image: np.ndarray, suffix: str) -> bytes:
    data: bytes = cv2.imencode(suffix, image)[1].tobytes()
    return data


def command(options: DemoOptions) -> None:
    """Run the demo."""
    demo(options.output)
