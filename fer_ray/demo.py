"""Run every stage on drawn faces, in about a minute on two cores, and show the results on one page."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import pyarrow.parquet as pq
import typer
from matplotlib import cbook

from fer_ray.config.files import load_config, to_yaml
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.text import duration
from fer_ray.evaluate import evaluate
from fer_ray.prepare import prepare
from fer_ray.report import report
from fer_ray.reporting.evaluation_text import describe as describe_evaluation
from fer_ray.score import score
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.storage.local import claim_output, own_output
from fer_ray.train import train
from fer_ray.training.run_folder import describe_epoch
from fer_ray.tune import tune

SPACES = {
    "cnn3": {
        "model": {"name": "cnn3", "dropout": 0.1},
        "optimizer": {"name": "adam", "learning_rate": 2e-3, "weight_decay": 0.0},
        "search": {
            "optimizer.learning_rate": {"log_uniform": [5e-4, 5e-3]},
            "model.dropout": {"uniform": [0.0, 0.5]},
        },
    },
    "fast": {
        "model": {"name": "fast", "dropout": 0.1},
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "search": {
            "optimizer.learning_rate": {"log_uniform": [0.02, 0.2]},
            "model.dropout": {"uniform": [0.0, 0.5]},
        },
    },
}
"""Architecture to search space. A thousand drawn faces need smaller batches and fewer epochs than FER-2013."""
_BATCH = 32
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


def demo(output: Path | str = "fer-demo", *, size: DemoSize | None = None) -> DemoResult:
    """Prepare, tune, train, evaluate, score and report on drawn faces, and print the command of each step.

    Args:
        output: the folder to write; absent or empty.
        size: how much to do; None for about a minute on two cores.

    Raises:
        UsageError: the output folder is in use.
    """
    size, began = size or DemoSize(), time.monotonic()
    claim_output(output)
    root = Path(output).expanduser()  # not absolute: commands are printed with it
    with own_output(root, False, "another demo is running here", lambda: False):
        return _demo(root, size, began)


def _demo(root: Path, size: DemoSize, began: float) -> DemoResult:
    config = _prepare_and_tune(root, size)
    accuracy = _train(root, config, size)
    _evaluate_and_score(root, size)
    _label_portrait(root)
    folders = [root / name for name in ("run", "evaluation", "search", "scores", "dataset")]
    _step("7/7 Show all results on one page", ["report", *folders, "--output", root / "report", "--title", "Demo"])
    page = report(folders, root / "report", title="Demo").page
    print(f"\nDone in {duration(time.monotonic() - began)}. Open this page in a browser:\n{page}", flush=True)
    return DemoResult(Path(page), accuracy)


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
    jpeg = _encode(images[0], ".jpg")
    broken = {
        "empty.jpg": b"",
        "no image.png": b"this file only claims to be an image\n",
        "torn header.jpg": jpeg[:40],
        "notes.txt": b"not an image either\n",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    return len(broken)


def _prepare_and_tune(root: Path, size: DemoSize) -> Path:
    """Return the configuration file of the best trial."""
    source, dataset, search = f"synthetic:{size.faces}", root / "dataset", root / "search"
    title = f"1/7 Draw {size.faces:,} faces and prepare them as a dataset"
    _step(title, ["prepare", source, dataset, "--size", size.image_size])
    prepare(source, dataset, size=size.image_size)

    spaces = _write_spaces(root / "spaces", size.trial_epochs)
    space_options = [part for space in spaces for part in ("--space", space)]
    title = f"2/7 Search: {size.trials} trials over {' and '.join(SPACES)}"
    _step(title, ["tune", "--dataset", dataset, *space_options, "--trials", size.trials, "--output", search])
    result = tune(dataset, spaces, search, trials=size.trials)
    print(f"best: trial {result.best.number}, {result.best.space}, validation accuracy {result.best.value:.2%}")
    return Path(result.config_file)


def _write_spaces(folder: Path, epochs: int) -> list[Path]:
    folder.mkdir()
    files = []
    for name, raw in SPACES.items():
        space = SearchSpace.model_validate(raw | {"training": {"epochs": epochs, "batch_size": _BATCH}})
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(to_yaml(space), encoding="utf-8")
    return files


def _train(root: Path, config: Path, size: DemoSize) -> float:
    dataset, run, longer = root / "dataset", root / "run", f"training.epochs={size.epochs}"
    config = root / config.relative_to(root.absolute())
    _step(
        "3/7 Train the best configuration longer",
        ["train", "--dataset", dataset, "--config", config, "--set", longer, "--output", run],
    )
    result = train(dataset, load_config(config, [longer]), run)
    print(f"best {describe_epoch(result.best)}")
    return result.best["validation_accuracy"]


def _evaluate_and_score(root: Path, size: DemoSize) -> None:
    checkpoint, dataset, photos = root / "run" / "checkpoint", root / "dataset", root / "photos"
    _step(
        "4/7 Evaluate it on the test split, with and without mirrored views",
        ["evaluate", checkpoint, "--dataset", dataset, "--output", root / "evaluation"],
    )
    print(describe_evaluation(evaluate(checkpoint, dataset, root / "evaluation").evaluation))

    broken = write_photos(photos, size.photos)
    rate = float(np.ceil(100 * broken / (size.photos + broken)) / 100)
    _step(
        f"5/7 Label a folder of {size.photos} photos and {broken} broken files",
        ["score", checkpoint, photos, "--output", root / "scores", "--max-error-rate", rate],
    )
    score(checkpoint, [photos], root / "scores", max_error_rate=rate)


def _label_portrait(root: Path) -> None:
    """Label a real face with the network that comes with the package: drawn faces teach nothing about real ones."""
    photo, labels = Path(cbook.get_sample_data(_PORTRAIT, asfileobj=False)), root / "portrait-label"
    _step(
        "6/7 Find and label the face in a photo; without CHECKPOINT, score uses the network that comes with fer_ray",
        ["score", photo, "--faces", "detect", "--output", labels],
    )
    score(None, [photo], labels, faces="detect")
    (row,) = pq.read_table(labels / "part-00000.parquet", columns=["label", "confidence"]).to_pylist()
    print(f"Grace Hopper, in a photo of the US Navy: {row['label']}, confidence {row['confidence']:.0%}")


def _step(title: str, arguments: Sequence[object]) -> None:
    """Print the title of a step and the command that does the same."""
    print(f"\n{title}\n    fer-ray {shlex.join(map(str, arguments))}", flush=True)


def _encode(image: np.ndarray, suffix: str) -> bytes:
    data: bytes = cv2.imencode(suffix, image)[1].tobytes()
    return data


def command(
    output: Annotated[Path, typer.Option(help="Folder to write; absent or empty.")] = Path("fer-demo"),
) -> None:
    """Run all stages on drawn faces, in about a minute on two cores."""
    demo(output)


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["demo", *sys.argv[1:]])
