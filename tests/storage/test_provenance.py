"""provenance.json: commands as typed, no secrets, each start of a resumed run, invalid files."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

import fer_ray
from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError
from fer_ray.storage.provenance import command_line, read_provenance, record_start
from fer_ray.train import train


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        (["/venv/bin/python3", "/venv/bin/fer-ray", "train", "--output", "my run"], "fer-ray train --output 'my run'"),
        (["/usr/bin/python", "-m", "fer_ray.tune", "--trials", "4"], "python -m fer_ray.tune --trials 4"),
        (["/usr/bin/python3", "search.py"], "python3 search.py"),
        (
            ["python", "-m", "fer_ray.tune", "--storage=mysql://me:a%20b@db/s"],
            "python -m fer_ray.tune '--storage=mysql://me:***@db/s'",
        ),
        (["python"], "python"),
    ],
)
def test_a_command_reads_as_typed(arguments: list[str], typed: str) -> None:
    assert command_line(arguments) == typed


@pytest.mark.slow
def test_the_file_names_command_versions_machine_and_time(tmp_path: Path) -> None:
    code = "import sys; from fer_ray.storage.provenance import record_start; from pathlib import Path;"
    code += " record_start(Path(sys.argv[1]))"
    url = "postgresql://me:secret@db/study"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), url], check=True)
    text = (tmp_path / "provenance.json").read_text(encoding="utf-8")
    (start,) = json.loads(text)["starts"]
    assert start["command"].startswith(Path(sys.executable).name)
    assert start["command"].endswith("'postgresql://me:***@db/study'")
    assert "secret" not in text
    assert platform.node() not in text or len(platform.node()) < 4
    assert start["versions"]["fer_ray"] == fer_ray.__version__
    assert start["versions"]["python"] == platform.python_version()
    assert start["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"ray", "numpy", "optuna"} <= start["versions"].keys()
    assert start["hardware"]["cores"] >= 1
    assert start["hardware"]["memory_gib"] > 0.1
    assert len(start["hardware"]["gpus"]) >= torch.cuda.device_count()
    age = datetime.now(UTC) - datetime.fromisoformat(start["started"])
    assert -1 < age.total_seconds() < 600


def test_a_resumed_run_keeps_each_start(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    settings = load_config(None, ["model.name=cnn3", "optimizer.name=adam", "training.epochs=1"])
    train(tiny_dataset.path, settings, tmp_path / "run")
    train(tiny_dataset.path, settings, tmp_path / "run", resume=True)
    provenance = read_provenance(tmp_path / "run")
    assert provenance is not None
    assert len(provenance.starts) == 2
    assert provenance.starts[0].started <= provenance.starts[1].started


def test_a_damaged_file_is_named_and_kept(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None
    (tmp_path / "provenance.json").write_text('{"starts": []}')
    with pytest.raises(DataError, match=r"provenance\.json: invalid"):
        record_start(tmp_path)
    assert (tmp_path / "provenance.json").read_text() == '{"starts": []}'
