"""Run every stage on drawn faces, in about a minute on two cores, and show the results on one page."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["demo", *sys.argv[1:]])

import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
from matplotlib import cbook

from fer_ray.cli import make_app
from fer_ray.config.options import DemoOptions
from fer_ray.console.text import duration
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.storage.local import local_path
from fer_ray.storage.output import open_output

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
    """Run commands that prepare, tune, train, evaluate, score, export, audit and report on drawn faces, and print them.

    Returns the page of all results. ``UsageError`` if the output folder is in use, ``SystemExit`` if a command fails,
    which has printed why.
    """
    began, page = time.monotonic(), local_path(output) / "report" / "report.html"
    with open_output(local_path(output)):
        for title, command in _commands(Path(output).expanduser(), size or DemoSize()):
            words = [str(word) for word in command]
            print(f"\n{title}\n    fer-ray {shlex.join(words)}", flush=True)
            if code := make_app()(words, standalone_mode=False):
                sys.exit(code)
    print(f"\nDone in {duration(time.monotonic() - began)}. Open this page in a browser:\n{page}", flush=True)
    return page


def _commands(root: Path, size: DemoSize) -> Iterator[tuple[str, list[object]]]:
    """Yield the title and the words of each command, once its inputs are there."""
    names = ("dataset", "search", "run", "evaluation", "scores", "photos")
    dataset, search, run, evaluation, scores, photos = (root / name for name in names)
    checkpoint, data = run / "checkpoint", ["--dataset", dataset]
    title = f"1/9 Draw {size.faces:,} faces and prepare them as a dataset"
    yield title, ["prepare", f"synthetic:{size.faces}", dataset, "--size", size.image_size]

    spaces = [word for name in _SPACES for word in ("--space", name)]
    changes = ["--set", _BATCH, "--set", f"training.epochs={size.trial_epochs}"]
    title = f"2/9 Search: {size.trials} trials of {' and '.join(_SPACES)}"
    yield title, ["tune", *data, *spaces, *changes, "--trials", size.trials, "--output", search]

    best = ["--config", search / "best.yaml", "--set", f"training.epochs={size.epochs}"]
    yield "3/9 Train the best one longer", ["train", *data, *best, "--output", run]

    title = "4/9 Evaluate it on the test split, with and without mirrored views"
    yield title, ["evaluate", checkpoint, *data, "--output", evaluation]

    broken = _write_photos(photos, size.photos)
    rate = math.ceil(100 * broken / (size.photos + broken)) / 100
    title = f"5/9 Label a folder of {size.photos} photos and {broken} broken files"
    yield title, ["score", checkpoint, photos, "--output", scores, "--max-error-rate", rate]

    # Drawn faces teach nothing about real ones, so this network is not the trained one.
    title = "6/9 Find and label the face in a photo, with the network that comes with fer_ray"
    yield title, ["score", cbook.get_sample_data(_PORTRAIT, asfileobj=False), "--faces", "detect"]

    title = "7/9 Write the trained network for programs without PyTorch"
    yield title, ["export", checkpoint, "--output", root / "onnx"]

    title = "8/9 Look for labels that are likely wrong"
    quick = ["--set", f"training.epochs={size.trial_epochs}", "--folds", 2, "--output", root / "audit"]
    yield title, ["audit", *data, "--config", search / "best.yaml", *quick]

    folders = [run, evaluation, search, scores, dataset]
    yield "9/9 Show all results on one page", ["report", *folders, "--output", root / "report", "--title", "Demo"]


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


def command(options: DemoOptions) -> None:
    """Run the demo."""
    demo(options.output)
