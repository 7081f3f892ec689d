"""Write a checkpoint's network as ONNX models for other programs, and check them against the checkpoint."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["export", *sys.argv[1:]])

import functools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fer_ray.config.options import ExportOptions
from fer_ray.config.stage_options import stage
from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import FerRayError
from fer_ray.inference.network import EVAL_BATCH, OnnxModel, digest, random_images
from fer_ray.inference.onnx_files import OPSET, write_int8, write_metadata, write_onnx
from fer_ray.inference.predictor import Predictor, load_members
from fer_ray.reporting.html import load_template
from fer_ray.storage.inputs import INT8_FILE, WEIGHTS_FILE, local_copy
from fer_ray.storage.local import write_whole
from fer_ray.storage.output import open_output
from fer_ray.storage.provenance import record_start

ONNX_FILE = "model.onnx"
_CALIBRATION_IMAGES = 500
_RANDOM_IMAGES = 256
_MOST_DIFFERENCE = 1e-4
"""Largest difference of a probability between the checkpoint and its float32 model."""
_MOST_INT8_LOSS = 0.005
"""Largest loss of accuracy by int8: half a percentage point."""


@dataclass(frozen=True)
class ModelCheck:
    """A model's predictions beside those of its checkpoint in float32."""

    images: int  # number of images
    difference: float  # largest difference of a probability
    agreement: float  # share of images with the same label
    accuracy: float | None  # of the model; None without a dataset
    checkpoint_accuracy: float | None

    def describe(self, name: str) -> str:
        """Return a line of text."""
        figures = f"{name}: probabilities differ by at most {self.difference:.2g}, {self.agreement:.2%} same labels"
        if self.accuracy is not None and self.checkpoint_accuracy is not None:
            figures += f", accuracy {self.accuracy:.2%}, the checkpoint's {self.checkpoint_accuracy:.2%}"
        return f"{figures} (n = {self.images:,})"


@dataclass(frozen=True)
class ExportResult:
    """Exported models."""

    path: Path | str  # path or URL of the output folder
    checks: dict[str, ModelCheck]  # of each model, by file name


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
    data = None if options.dataset is None else PreparedDataset(options.dataset)
    (checkpoint,) = load_members([options.checkpoint], data.info.size if data else None)
    images, labels = random_images(_RANDOM_IMAGES, checkpoint.info.size), None
    if data:
        validation = data.load("validation")
        images, labels = validation.images, validation.labels
    expected = Predictor(checkpoint, precision="float32").predict(images).probabilities
    check = functools.partial(_check, images=images, labels=labels, expected=expected)
    with open_output(options.output, inputs=[options.checkpoint]) as output, output.whole() as folder:
        write_onnx(checkpoint, folder / ONNX_FILE)
        checks = {ONNX_FILE: check(folder / ONNX_FILE)}
        if options.int8 and data:
            train = data.load("train")
            chosen = np.random.default_rng(0).permutation(len(train))[:_CALIBRATION_IMAGES]
            write_int8(folder / ONNX_FILE, train.images[np.sort(chosen)], folder / INT8_FILE)
            checks[INT8_FILE] = check(folder / INT8_FILE)
        _require_close(checks)
        described = {"labels": ",".join(EMOTIONS), "weights": digest(local_copy(options.checkpoint) / WEIGHTS_FILE)}
        for name, found in checks.items():
            write_metadata(folder / name, described | {field: str(value) for field, value in asdict(found).items()})
        text = load_template("export.md.j2").render(checks=checks, info=checkpoint.info, labels=EMOTIONS, opset=OPSET)
        (folder / "README.md").write_text(text, encoding="utf-8")
        record_start(folder)
        if options.into_checkpoint:
            write_whole(local_copy(options.checkpoint) / INT8_FILE, (folder / INT8_FILE).read_bytes())
    return ExportResult(output.file(), checks)


def _check(file: Path, images: np.ndarray, labels: np.ndarray | None, expected: np.ndarray) -> ModelCheck:
    """Compare a model's predictions of images with the probabilities that the checkpoint gives them in float32."""
    model, batches = OnnxModel(file), range(0, len(images), EVAL_BATCH)
    found = np.concatenate([model.probabilities(images[first : first + EVAL_BATCH]) for first in batches])
    own, reference = found.argmax(axis=1), expected.argmax(axis=1)
    return ModelCheck(
        images=len(images),
        difference=float(np.abs(found - expected).max()),
        agreement=float((own == reference).mean()),
        accuracy=None if labels is None else float((own == labels).mean()),
        checkpoint_accuracy=None if labels is None else float((reference == labels).mean()),
    )


def _require_close(checks: dict[str, ModelCheck]) -> None:
    float32, int8 = checks[ONNX_FILE], checks.get(INT8_FILE)
    if float32.difference > _MOST_DIFFERENCE:
        raise FerRayError(
            f"{float32.describe(ONNX_FILE)}: the difference must be at most {_MOST_DIFFERENCE:g}, so nothing was"
            " written. Please report this fault of the exporter."
        )
    if int8 and (int8.checkpoint_accuracy or 0) - (int8.accuracy or 0) > _MOST_INT8_LOSS:
        raise FerRayError(
            f"{int8.describe(INT8_FILE)}: int8 may lose at most {_MOST_INT8_LOSS:.1%}, so nothing was written. Export"
            " without --int8, or train another architecture."
        )


def command(options: ExportOptions) -> None:
    """Export, and print the checks."""
    result = export.run(options)
    for name, check in result.checks.items():
        print(check.describe(name))
    print(f"Models: {result.path}")
