"""A checkpoint: a folder with ``model.safetensors`` and ``checkpoint.json``, and no pickle.

A folder from which a run resumes also holds ``training.pt`` (optimizer state, counters and history), which is loaded
with ``weights_only=True``. One that `fer-ray export --into-checkpoint` changed also holds ``model.int8.onnx``.
"""

import io
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import nn

from fer_ray.cluster.memory import first_line
from fer_ray.config.schema import Config
from fer_ray.emotions import EMOTIONS, csv_order
from fer_ray.errors import DataError, FerRayError
from fer_ray.models import build
from fer_ray.storage.inputs import INFO_FILE, INT8_FILE, WEIGHTS_FILE, checkpoint_within, local_copy
from fer_ray.storage.json_files import StoredModel, read_json
from fer_ray.storage.local import recover_folder, whole_folder
from fer_ray.storage.object_store import absolute
from fer_ray.version import VERSION

FORMAT_VERSION = 1
TRAINING_FILE = "training.pt"
_REMEDY = "Name a folder that `fer-ray train` or `fer-ray tune` wrote, such as RUN/checkpoint."


class CheckpointInfo(StoredModel):
    """The contents of ``checkpoint.json``."""

    format_version: int = FORMAT_VERSION
    fer_ray_version: str = VERSION
    config: Config
    label_names: tuple[str, ...] = Field(EMOTIONS, description="Label names in the order of the network's outputs.")
    mean: float = Field(description="Mean of the training pixels, 0 to 1, for normalisation.")
    std: float = Field(description="Standard deviation of the training pixels, for normalisation.")
    size: int = Field(description="Side of the square input in pixels.")
    channels: int = 1
    epoch: int = Field(description="Number of finished epochs.")
    metrics: dict[str, float] = Field(description="Metrics of this epoch, as in metrics.jsonl.")
    temperature: float = Field(
        1.0, gt=0, description="Divisor of the logits before the softmax, fitted on the validation split."
    )
    dataset_fingerprint: str = Field(description="Fingerprint of the prepared dataset of the training.")


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode on the CPU, with its description."""

    model: nn.Module
    info: CheckpointInfo
    int8: Path | None = None  # file of its int8 model


def save_checkpoint(
    folder: Path, weights: dict[str, torch.Tensor], info: CheckpointInfo, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint, and atomically replace the previous one in ``folder``, which an ``OSError`` leaves as it was.

    ``training`` is the state to resume from, tensors and plain values; None for a checkpoint that only predicts.
    """
    with whole_folder(folder, replace=True) as partial:
        # Written by Python, because safetensors and torch would wrap an OSError in errors of their own.
        content = to_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        (partial / WEIGHTS_FILE).write_bytes(content)
        (partial / INFO_FILE).write_text(info.model_dump_json(indent=2), encoding="utf-8")
        if training is not None:
            state = io.BytesIO()
            torch.save(training, state)
            (partial / TRAINING_FILE).write_bytes(state.getbuffer())


def copy_checkpoint(source: Path, dest: Path) -> None:
    """Copy a checkpoint without its training state, and replace ``dest``, which stays whole at an ``OSError``."""
    with whole_folder(dest, replace=True) as partial:
        for name in (WEIGHTS_FILE, INFO_FILE):
            shutil.copyfile(source / name, partial / name)


def read_info(folder: Path, name: str = "") -> CheckpointInfo:
    """Read a checkpoint's description; ``DataError`` if it is missing or wrong, with ``name`` or the folder."""
    return read_json(CheckpointInfo, folder / INFO_FILE, f"Train it again. {_REMEDY}", f"{name or folder}/{INFO_FILE}")


def load_checkpoint(path_or_url: Path | str) -> Checkpoint:
    """Read a checkpoint folder, by path or URL.

    Raises:
        DataError: the folder is missing, damaged, not a checkpoint or of another format version, the weights don't fit
            the network, or its labels are not the seven emotions.
    """
    folder, name = local_copy(path_or_url), absolute(path_or_url)
    missing = [file for file in (WEIGHTS_FILE, INFO_FILE) if not (folder / file).is_file()]
    if missing:
        inside = checkpoint_within(folder, INFO_FILE)
        hint = f" Did you mean {name}/{inside.name}?" if inside else f" {_REMEDY}"
        raise DataError(f"{name}: not a checkpoint, it has no {' and no '.join(missing)}.{hint}")
    info = read_info(folder, name)
    try:
        csv_order(info.label_names)
        model = build(info.config.model, info.size, len(info.label_names))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except FerRayError as error:
        raise DataError(f"{name}: {error}") from error
    except SafetensorError as error:
        raise DataError(f"{name}/{WEIGHTS_FILE}: damaged: {error}. {_REMEDY}") from error
    except RuntimeError as error:  # further lines list all tensors
        misfit = f"its weights don't fit '{info.config.model.name}': {first_line(error)}"
        raise DataError(f"{name}/{WEIGHTS_FILE}: {misfit}. {_REMEDY}") from error
    return Checkpoint(model.eval(), info, folder / INT8_FILE if (folder / INT8_FILE).is_file() else None)


def load_training_state(folder: Path) -> dict[str, Any]:
    """Read the training state of a checkpoint; ``DataError`` if it is missing or damaged."""
    recover_folder(folder)
    file = folder / TRAINING_FILE
    if not file.is_file():
        raise DataError(f"{file}: missing, so the run can't resume from {folder}. Train again in another folder.")
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{file}: damaged: {first_line(error)}. The run can't resume from it: restore it, or train again in another"
            " folder."
        ) from error
    return state
