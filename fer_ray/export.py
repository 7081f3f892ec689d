"""Write a checkpoint's network as ONNX models for other programs, and check them against the checkpoint."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["export", *sys.argv[1:]])

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_ray.config.stage_options import stage
from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, FerRayError
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.onnx_models import OPSET, OnnxModel, write_int8, write_onnx
from fer_ray.inference.predictor import Predictor
from fer_ray.options import ExportOptions
from fer_ray.reporting.html import load_template
from fer_ray.storage.inputs import INT8_FILE
from fer_ray.storage.output import open_output
from fer_ray.storage.provenance import record_start
from fer_ray.version import VERSION

ONNX_FILE = "model.onnx"
_CALIBRATION_IMAGES = 500
_RANDOM_IMAGES = 256
_NONE = np.empty(0, dtype=np.uint8)
_MOST_DIFFERENCE = 1e-4
"""Largest difference of a probability between the checkpoint and its float32 model."""
_MOST_LOSS = 0.005
"""Largest loss of accuracy by int8: half a percentage point."""


@dataclass(frozen=True)
class ModelCheck:
    """A model's predictions beside those of its checkpoint in float32.

    Attributes:
        images: number of images.
        difference: largest difference of a probability.
        agreement: share of images with the same label.
        accuracy: of the model; None without a dataset.
        checkpoint_accuracy: of the checkpoint; None without a dataset.
    """

    images: int
    difference: float
    agreement: float
    accuracy: float | None
    checkpoint_accuracy: float | None

    def describe(self, name: str) -> str:
        """Return a line of text."""
        figures = f"{name}: probabilities differ by at most {self.difference:.2g}, {self.agreement:.2%} same labels"
        if self.accuracy is not None and self.checkpoint_accuracy is not None:
            figures += f", accuracy {self.accuracy:.2%}, the checkpoint's {self.checkpoint_accuracy:.2%}"
        return f"{figures} (n = {self.images:,})"


@dataclass(frozen=True)
class ExportResult:
    """Exported models.

    Attributes:
        path: path or URL of the output folder.
        checks: of each model, by file name.
    """

    path: Path | str
    checks: dict[str, ModelCheck]


@stage(ExportOptions)
def export(options: ExportOptions) -> ExportResult:
    """Write ``model.onnx`` and a README.md, with ``int8`` also ``model.int8.onnx``, each checked before it is kept.

    A model takes ``pixels``, uint8, n × size × size, grey, 0 black to 255 white, and returns ``probabilities``,
    float32, n × 7, calibrated, in csv order.

    Raises:
        UsageError: the output is in use.
        DataError: the checkpoint or the dataset can't be read, or the dataset's images have another size.
        FerRayError: a model's predictions differ too much from the checkpoint's.
    """
    checkpoint = load_checkpoint(options.checkpoint)
    images, labels, calibration = _images(options, checkpoint)
    with open_output(options.output, inputs=[options.checkpoint]) as output, output.whole() as folder:
        checks = _write(checkpoint, folder, images, labels, calibration)
        text = load_template("export.md.j2").render(
            checks=checks, info=checkpoint.info, labels=EMOTIONS, opset=OPSET, int8=INT8_FILE if options.int8 else ""
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        record_start(folder)
    return ExportResult(output.file(), checks)


def _images(options: ExportOptions, checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return the images of the check, their labels if they have any, and the images of the calibration."""
    size = checkpoint.info.size
    if options.dataset is None:
        return np.random.default_rng(0).integers(0, 256, (_RANDOM_IMAGES, size, size), dtype=np.uint8), None, _NONE
    data = PreparedDataset(options.dataset)
    if data.info.size != size:
        raise DataError(
            f"{data.path_or_url}: images of {data.info.size} pixels, the checkpoint expects {size}. Prepare the dataset"
            f" with --size {size}."
        )
    validation = data.load("validation")
    if not options.int8:
        return validation.images, validation.labels, _NONE
    train = data.load("train")
    chosen = np.random.default_rng(0).permutation(len(train))[:_CALIBRATION_IMAGES]
    return validation.images, validation.labels, train.images[np.sort(chosen)]


def _write(
    checkpoint: Checkpoint, folder: Path, images: np.ndarray, labels: np.ndarray | None, calibration: np.ndarray
) -> dict[str, ModelCheck]:
    """Write the models and return their checks."""
    expected = Predictor(checkpoint, precision="float32").predict(images).probabilities
    metadata = {"labels": ",".join(EMOTIONS), "fer_ray_version": VERSION}
    write_onnx(checkpoint, folder / ONNX_FILE, metadata)
    checks = {ONNX_FILE: _check(folder / ONNX_FILE, images, labels, expected)}
    if checks[ONNX_FILE].difference > _MOST_DIFFERENCE:
        raise FerRayError(
            f"{checks[ONNX_FILE].describe(ONNX_FILE)}: the difference must be at most {_MOST_DIFFERENCE:g}, so nothing"
            " was written. Report this with the checkpoint's architecture."
        )
    if len(calibration):
        write_int8(folder / ONNX_FILE, calibration, folder / INT8_FILE, metadata)
        check = checks[INT8_FILE] = _check(folder / INT8_FILE, images, labels, expected)
        assert check.accuracy is not None and check.checkpoint_accuracy is not None
        if check.checkpoint_accuracy - check.accuracy > _MOST_LOSS:
            raise FerRayError(
                f"{check.describe(INT8_FILE)}: int8 may lose at most {_MOST_LOSS:.1%}, so nothing was written. Export"
                " without --int8, or train another architecture."
            )
    return checks


def _check(file: Path, images: np.ndarray, labels: np.ndarray | None, expected: np.ndarray) -> ModelCheck:
    found = OnnxModel(file).probabilities(images)
    return ModelCheck(
        images=len(images),
        difference=float(np.abs(found - expected).max()),
        agreement=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        accuracy=None if labels is None else float((found.argmax(axis=1) == labels).mean()),
        checkpoint_accuracy=None if labels is None else float((expected.argmax(axis=1) == labels).mean()),
    )


def command(options: ExportOptions) -> None:
    """Export, and print the checks."""
    result = export.run(options)
    for name, check in result.checks.items():
        print(check.describe(name))
    print(f"Models: {result.path}")
