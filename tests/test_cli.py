"""Wrong calls: exit code, message and nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fer_ray
from fer_ray.cli import main
from fer_ray.config.options import STAGES
from fer_ray.dataset.store import PreparedDataset

Captured = pytest.CaptureFixture[str]


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


LIGHT = """
import contextlib, io, json, runpy, sys, warnings
from fer_ray import cli
warnings.simplefilter("ignore")  # runpy warns that a stage is imported already
said = {}
for stage, *arguments in json.loads(sys.argv[1]):
    module = lambda: runpy.run_module(f"fer_ray.{stage}", run_name="__main__")
    for main in (module, lambda: cli.main([stage, *arguments])):
        sys.argv = ["-m", *arguments]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            try:
                main()
            except SystemExit as end:
                said.setdefault(" ".join([stage, *arguments]), []).append((end.code, out.getvalue()))
heavy = {"torch", "pandas", "matplotlib", "ray", "pyarrow", "numpy", "sklearn", "optuna", "cv2"} & set(sys.modules)
print(json.dumps([sorted(heavy), said]))
"""
WRONG = {
    "train --dataset nowhere --output run": (3, "nowhere: no such folder"),
    "train --dataset nowhere --output run --set modle.name=fast": (2, "Did you mean 'model'?"),
    "train --dataset nowhere --output run --workers 0": (2, "--workers 0: must be at least 1."),
    "tune --dataset nowhere --space fsat --trials 2 --output run": (2, "Did you mean 'fast'?"),
    "evaluate c --dataset nowhere --output run --tta flap": (2, "Did you mean 'flip'?"),
    "score photos --output run --max-error-rate 7": (2, "--max-error-rate 7.0: must be at most 1."),
    "prepare a b --size 4 --seed -1": (2, "--seed -1: must be at least 0."),
    "report --output run": (2, "Missing argument"),
    "models --precision half": (2, "half"),
}


@pytest.mark.slow
def test_help_and_wrong_calls_import_nothing_heavy(tmp_path: Path) -> None:
    """For every stage, as ``python -m fer_ray.STAGE`` and as ``fer-ray STAGE``."""
    calls = [[stage, option] for stage in STAGES for option in ("--help", "--misspelt")]
    calls += map(str.split, WRONG)
    command = [sys.executable, "-c", LIGHT, json.dumps(calls)]
    environment = os.environ | {"PYTHONPATH": str(Path(fer_ray.__file__).parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    heavy, said = json.loads(run.stdout)
    assert heavy == []
    expected = WRONG | {f"{stage} --help": (0, f"Usage: fer-ray {stage} ") for stage in STAGES}
    expected |= {f"{stage} --misspelt": (2, "No such option: --misspelt") for stage in STAGES}
    for call, (code, text) in expected.items():
        for found in said[call]:
            assert found[0] == code and text in found[1], (call, found)
    assert list(tmp_path.iterdir()) == []


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("_FER_RAY_COMPLETE", "complete_bash")
    for words, expected in {"fer-ray ev": "evaluate", "fer-ray tune --work": "--workers-per-trial"}.items():
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert exit_code([]) == 0
        assert capsys.readouterr().out.split() == [expected]


WRONG_FILES = {
    "train --dataset data --output run --set model.name=resnet": (2, "resnet18"),
    "evaluate data --dataset data --output run": (3, "not a checkpoint"),
    "train --dataset ftp://bucket/data --output run": (2, "ftp://"),
    "train --dataset data --output run --resume": (2, "a run to resume"),
    "train --dataset data --output run --config data": (2, "is a folder"),
    "train --dataset data --output run --workers 99": (2, "gives parts below 2 images"),
    "train --dataset data --output run --gpus-per-worker 0.5": (2, "--gpus-per-worker 0.5: must be 0 or 1."),
    "train --dataset data --output /dev/null/run": (2, "the folder can't be made"),
}


@pytest.mark.parametrize("call", WRONG_FILES)
def test_wrong_calls(
    call: str, tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    code, expected = WRONG_FILES[call]
    (tmp_path / "data").symlink_to(tiny_dataset.path)
    monkeypatch.chdir(tmp_path)
    assert exit_code(call.split()) == code
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    """A module whose import is interrupted stands for Ctrl-C in the first second."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "fer_ray.cli", "evaluate", "x", "--dataset", "x", "--output", "x"]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert (run.returncode, run.stderr) == (130, "fer-ray: error: interrupted.\n")
