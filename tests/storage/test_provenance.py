"""provenance.json: commands as typed, no secrets, each start of a resumed run, invalid files."""

import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fer_ray
from fer_ray.errors import DataError
from fer_ray.storage.provenance import command_line, read_provenance, record_start


def test_a_command_reads_as_typed() -> None:
    command = ["/venv/bin/python3", "/venv/bin/fer-ray", "train", "--output", "my run"]
    assert command_line(command) == "fer-ray train --output 'my run'"
    assert command_line(["/usr/bin/python3", "search.py"]) == "python3 search.py"


def test_the_file_names_command_versions_machine_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/bin/python3", "-m", "fer_ray.tune", "postgresql://me:secret@db/study"])
    record_start(tmp_path)
    text = (tmp_path / "provenance.json").read_text(encoding="utf-8")
    (start,) = json.loads(text)["starts"]
    assert start["command"] == "python3 -m fer_ray.tune 'postgresql://me:***@db/study'" and "secret" not in text
    assert platform.node() not in text or len(platform.node()) < 4
    assert start["versions"]["fer_ray"] == fer_ray.__version__
    assert {"python", "torch", "ray", "numpy", "optuna"} <= start["versions"].keys()
    assert start["hardware"]["cores"] >= 1 and start["hardware"]["memory_gib"] > 0.1
    age = datetime.now(UTC) - datetime.fromisoformat(start["started"])
    assert -1 < age.total_seconds() < 600


def test_each_start_is_kept_and_a_damaged_file_too(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None
    record_start(tmp_path)
    record_start(tmp_path)
    provenance = read_provenance(tmp_path)
    assert provenance is not None and len(provenance.starts) == 2
    (tmp_path / "provenance.json").write_text('{"starts": []}')
    with pytest.raises(DataError, match=r"provenance\.json: invalid"):
        record_start(tmp_path)
    assert (tmp_path / "provenance.json").read_text() == '{"starts": []}'
