"""Write networks as ONNX models: uint8 grey pixels in, probabilities in csv order out."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from fer_ray.emotions import csv_order
from fer_ray.inference.checkpoint import Checkpoint
from fer_ray.inference.network import EVAL_BATCH, PIXELS, PROBABILITIES, normalize

OPSET = 18
_QUANTIZED = ["Conv", "Gemm", "MatMul", "Add", "MaxPool"]


class _FromPixels(nn.Module):
    """A checkpoint's network with normalisation before it, and temperature and softmax after it."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__()
        self.model, self.info = checkpoint.model, checkpoint.info
        self.register_buffer("order", torch.tensor(csv_order(self.info.label_names)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = self.model(normalize(pixels, self.info.mean, self.info.std))
        probabilities: torch.Tensor = (logits / self.info.temperature).softmax(dim=1)[:, self.order]
        return probabilities


def write_onnx(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint's network as an ONNX model of float32 weights.

    The model takes ``pixels``, uint8, n × size × size, and returns ``probabilities``, float32, n × 7, in csv order.
    Normalisation, temperature and softmax are inside.
    """
    pixels = torch.zeros((2, checkpoint.info.size, checkpoint.info.size), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated calls
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _FromPixels(checkpoint).eval(),
            (pixels,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            opset_version=OPSET,
            input_names=[PIXELS],
            output_names=[PROBABILITIES],
            verbose=False,
        )
    assert program is not None
    file.write_bytes(program.model_proto.SerializeToString())


def write_int8(model: Path, images: np.ndarray, file: Path) -> None:
    """Quantize an ONNX model to int8 weights, a scale a channel, and uint8 activations whose ranges images determine.

    Weights use 7 bits, because CPUs without VNNI instructions would overflow with 8. ``model`` is a file of
    ``write_onnx``; some hundred training images, uint8, n × size × size, suffice.
    """
    simplified = file.with_suffix(".simplified")
    quant_pre_process(str(model), str(simplified), skip_symbolic_shape=True)
    quantize_static(
        str(simplified),
        str(file),
        _Batches(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=_QUANTIZED,
        extra_options={"CalibMovingAverage": True},  # of the batches' ranges: an outlier doesn't coarsen all steps
    )
    simplified.unlink()


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: np.ndarray):
        starts = range(0, len(images), EVAL_BATCH)
        self._batches = ({PIXELS: images[first : first + EVAL_BATCH]} for first in starts)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def write_metadata(file: Path, metadata: dict[str, str]) -> None:
    """Check a model, and replace the exporter's notes in it, on where each operator comes from, by other metadata."""
    model = onnx.load(file)
    for described in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del described.metadata_props[:]
    for described in (*model.graph.node, model.graph):
        described.doc_string = ""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString())
