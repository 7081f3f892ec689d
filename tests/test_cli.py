"""Wrong calls: exit code, message and nothing written."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fer_ray.cli import STAGES, main
from fer_ray.dataset.store import PreparedDataset


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_each_stage_explains_itself(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``python -m fer_ray.STAGE --help``."""
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"fer_ray.{stage}", run_name="__main__")
    assert end.value.code == 0
    assert f"fer-ray {stage}" in capsys.readouterr().out


def test_unknown_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["preprae"]) == 2
    assert "Did you mean 'prepare'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["train", "--dataset", "nowhere", "--output", "run"], 3, "no such folder"),
        (["train", "--dataset", "data", "--output", "run", "--set", "model.name=resnet"], 2, "resnet18"),
        (["train", "--dataset", "data", "--output", "run", "--set", "modle.name=fast"], 2, "Did you mean 'model'?"),
        (["train", "--dataset", "data", "--output", "data"], 2, "in use"),
        (["train", "--dataset", "data"], 2, "--output"),
        (["evaluate", "data", "--dataset", "data", "--output", "run"], 3, "not a checkpoint"),
        (["train", "--dataset", "ftp://bucket/data", "--output", "run"], 2, "ftp://"),
        (["train", "--dataset", "data", "--output", "run", "--resume"], 2, "nothing to resume"),
        (["train", "--dataset", "data", "--output", "run", "--config", "data"], 2, "is a folder"),
        (["train", "--dataset", "data", "--output", "run", "--workers", "99"], 2, "gives parts below 2 images"),
        (["train", "--dataset", "data", "--output", "/dev/null/run"], 2, "the folder can't be made"),
        (["report", "data", "--output", "/dev/null/report"], 2, "the folder can't be made"),
        (["report", "data", "--output", "data/report"], 2, "the output is inside the input data"),
        (["train", "--dataset", "data", "--output", "run", "--set", "modle.name=x", "--set", "foo"], 2, "Did you mean"),
        (["train", "--dataset", "data", "--output", "run", "--set", "modle.name=x", "--set", "foo"], 2, "--set foo"),
    ],
)
def test_wrong_calls(
    arguments: list[str],
    code: int,
    expected: str,
    tiny_dataset: PreparedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").symlink_to(tiny_dataset.path)
    monkeypatch.chdir(tmp_path)
    assert exit_code(arguments) == code
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    """A module whose import is interrupted stands for Ctrl-C in the first second."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "fer_ray.cli", "evaluate", "x", "--dataset", "x", "--output", "x"]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert (run.returncode, run.stderr) == (130, "fer-ray: error: interrupted.\n")
