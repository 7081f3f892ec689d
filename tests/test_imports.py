"""The rules of the house: what may import what, and how long files and functions may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_ray.dataset.store import PreparedDataset

PACKAGE = Path(__file__).parents[1] / "fer_ray"
FILES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
STAGES = ("prepare", "train", "tune", "evaluate", "score", "export", "audit", "report", "architectures", "demo")
# From the lowest to the highest; each may import itself and those before it.
LAYERS = ["console", "errors", "version", "emotions", "storage", "config", "cluster", "images", "sources", "dataset"]
LAYERS += ["models", "inference", "training", "search", "scoring", "reporting", "weights", "stages", "__init__", "cli"]
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 55


def module_of(file: Path) -> str:
    return ".".join(("fer_ray", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def imported(tree: ast.AST, everywhere: bool = True) -> Iterator[str]:
    """Yield the modules that a file imports, at its top alone or within functions too."""
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def layer_of(module: str) -> str:
    part = module.split(".")[1] if "." in module else "__init__"
    return "stages" if part in STAGES else part


def door(file: Path, module: str) -> bool:
    """Say whether it is the ``python -m`` door at the end of a stage."""
    return module == "fer_ray.cli" and (layer_of(module_of(file)) == "stages" or file.name == "__main__.py")


def test_ray_is_imported_by_the_stages_and_what_is_on_ray_alone() -> None:
    offenders = [
        str(file.relative_to(PACKAGE))
        for file, tree in FILES.items()
        if any(module.split(".")[0] == "ray" for module in imported(tree))
        and layer_of(module_of(file)) not in ("stages", "cluster")
        and "on_ray" not in module_of(file)
    ]
    assert offenders == []


def test_imports_point_downward() -> None:
    offenders = []
    for file, tree in FILES.items():
        own = module_of(file)
        for module in {name for name in imported(tree) if name.split(".")[0] == "fer_ray"}:
            upward = LAYERS.index(layer_of(module)) > LAYERS.index(layer_of(own)) and not door(file, module)
            between_stages = layer_of(own) == layer_of(module) == "stages" and own != module
            allowed = own == "fer_ray.demo" or (own, module) == ("fer_ray.tune", "fer_ray.train")
            if upward or (between_stages and not allowed):
                offenders.append(f"{own} imports {module}")
    assert sorted(offenders) == []


def test_no_imports_go_in_a_circle() -> None:
    graph = {module_of(file): set(imported(tree, everywhere=False)) & MODULES for file, tree in FILES.items()}
    while leaves := [module for module, targets in graph.items() if not targets & (set(graph) - {module})]:
        for module in leaves:
            del graph[module]
    assert sorted(graph) == []


def test_files_and_functions_stay_short_and_the_root_has_the_stages() -> None:
    offenders = []
    others = {"__init__", "cli", "emotions", "errors", "version"}  # that stand beside the stages
    offenders += [file.stem for file in FILES if file.parent == PACKAGE and file.stem not in {*STAGES, *others}]
    for file, tree in FILES.items():
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LINES_OF_A_FILE:
            offenders.append(f"{module_of(file)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                doc = len((ast.get_docstring(node, clean=False) or "").splitlines())
                lines = (node.end_lineno or 0) - node.lineno + 1 - doc
                if lines > LINES_OF_A_FUNCTION:
                    offenders.append(f"{module_of(file)}.{node.name}: {lines} lines")
    assert offenders == []


TRAIN_WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # every import of ray now raises ImportError
from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
rows = TrainingData.load(PreparedDataset(sys.argv[1]))
epochs = []
fit(load_config(None, ["training.epochs=1"]), rows, lambda metrics, snapshot: epochs.append(metrics["epoch"]))
assert epochs == [1], epochs
"""


@pytest.mark.slow
def test_training_needs_no_ray(tiny_dataset: PreparedDataset) -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRAIN_WITHOUT_RAY, str(tiny_dataset.path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
