"""The layers of the package: what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fer_ray.data.store import PreparedDataset

PACKAGE = Path(__file__).parent.parent / "fer_ray"
FILES = sorted(PACKAGE.rglob("*.py"))
STAGES = {"prepare", "train", "tune", "evaluate", "score", "report", "demo", "models_stage"}
ON_RAY = {
    "confirm_on_ray",
    "node_checks",
    "ray_metrics",
    "score_on_ray",
    "shared_progress",
    "this_node",
    "train_on_ray",
    "tune_loggers",
    "tune_on_ray",
    "tune_preflight",
    "tune_runtime",
    "tune_schedulers",
    "tune_workers",
}
# Each layer may import itself and those after it.
LAYERS = [
    {"cli"},
    STAGES,
    ON_RAY,
    {"learning", "reporting"},
    {"models"},
    {"data", "runtime"},
    {
        "checkpoint_files",
        "config",
        "config_files",
        "config_paths",
        "connections",
        "emotions",
        "errors",
        "files",
        "folders",
        "interrupts",
        "json_files",
        "json_log",
        "local_copies",
        "memory",
        "object_stores",
        "outputs",
        "progress",
        "provenance",
        "redaction",
        "resources",
        "search_checks",
        "search_spaces",
        "shown_places",
        "tta_names",
        "weights",
        "wording",
    },
]


def imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_stages_runtime_and_data_import_ray(file: Path) -> None:
    uses_ray = any(module.split(".")[0] == "ray" for module in imported_modules(file))
    assert not uses_ray or part_of(file) in STAGES | ON_RAY | {"runtime", "data"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_downward(file: Path) -> None:
    part = part_of(file)
    level = next((i for i, layer in enumerate(LAYERS) if part in layer), None)
    if level is None:
        assert part == "__init__", f"{part} belongs to no layer"
        return
    allowed = set().union(*LAYERS[level:])
    if part in STAGES - {"demo"}:
        allowed -= STAGES - {part}
        allowed |= {"train"} if part == "tune" else set()
    targets = {module.split(".")[1] for module in imported_modules(file) if module.startswith("fer_ray.")}
    if part in STAGES or part == "models":
        targets -= {"cli"}  # the `python -m` door at the end of a stage
    assert targets <= allowed | {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            doc = len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert (node.end_lineno or 0) - node.lineno + 1 - doc <= 55, f"{file.name}: {node.name}"


TRAIN_WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # every import of ray now raises ImportError
import numpy as np
from fer_ray.config_files import load_config
from fer_ray.data.store import PreparedDataset
from fer_ray.learning.loop import fit
from fer_ray.learning.rows import TrainingData
data = PreparedDataset(sys.argv[1])
rows = TrainingData.load(data)
epochs = []
fit(load_config(None, ["training.epochs=1"]), rows, lambda metrics, snapshot: epochs.append(metrics["epoch"]))
assert epochs == [1], epochs
"""


def test_training_needs_no_ray(tiny_dataset: PreparedDataset) -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRAIN_WITHOUT_RAY, str(tiny_dataset.path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
