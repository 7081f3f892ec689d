"""What options of several stages share: types, defaults and checks."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict
from pydantic import Field as Range
from typer import Option

from fer_ray.errors import Problems
from fer_ray.storage.local import local_path, require_dataset, split_url

WHY_ONE_GPU = (
    "A process computes on one GPU: NCCL refuses two processes on the same GPU, and further GPUs of a process would be"
    " idle."
)
LATER = ConfigDict(defer_build=True)  # classes build their checks at first use: help needs none

Count = Annotated[int, Range(ge=1)]
PathOrUrl = Path | str
Dataset = Annotated[PathOrUrl, Option(help="Prepared dataset, from `fer-ray prepare`.")]


def split_names(names: Any) -> Any:
    """Split names that are separated by commas."""
    parts = [names] if isinstance(names, str) else names
    return [name.strip() for part in parts for name in part.split(",") if name.strip()]


def dataset_problems(dataset: Path | str) -> Problems:
    problems = Problems()
    with problems.collect():
        if not split_url(dataset):
            require_dataset(local_path(dataset), local_path(dataset))
    return problems
