"""Stage prepare, end to end: what is left, and what is said, when something goes wrong."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from datasets_made import hashes, write_csv

import fer_ray.prepare
from fer_ray.cli import main
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.prepare import prepare
from fer_ray.sources.synthetic import synthetic_faces

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_nothing_is_left_when_prepare_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fer_ray.prepare, "draw_dataset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare("synthetic:20", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


KILLED_AT = {
    "reading": ("fer_ray.dataset.assemble:Spool.add", 2),
    "writing": ("pyarrow.parquet:ParquetWriter.write_table", 2),
    "drawing": ("matplotlib.figure:Figure.savefig", 2),
    "after the last write": ("pathlib:Path.rename", 1),
}
KILLED = """
import os, pkgutil, signal, sys
from fer_ray.prepare import prepare

target, last, source, dest = sys.argv[1:]
owner, name = target.rsplit(".", 1)
owner, calls = pkgutil.resolve_name(owner), 0
real = getattr(owner, name)

def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

setattr(owner, name, counted)
prepare(source, dest, size=24)
"""


@pytest.mark.slow
def test_killed_at_any_point_and_run_again_it_ends_with_the_same_dataset(
    tiny_dataset: PreparedDataset, tmp_path: Path
) -> None:
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    dest, partial = tmp_path / "out", tmp_path / ".out.partial"
    for moment, (target, calls) in KILLED_AT.items():
        command = [sys.executable, "-c", KILLED, target, str(calls), "synthetic:712", str(dest)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, f"{moment}: {done.stderr}"
        assert list(tmp_path.iterdir()) == [partial], moment
        assert (partial / "dataset.json").exists() == (moment == "after the last write"), moment
    prepare("synthetic:712", dest, size=24)
    assert list(tmp_path.iterdir()) == [dest]
    assert hashes(dest) == hashes(tiny_dataset.path)


def test_no_usable_row_is_bad_data(tmp_path: Path) -> None:
    image = synthetic_faces(1, seed=0)[0][0]
    source = write_csv(tmp_path / "x.csv", [(-1, image, "Training")])
    with pytest.raises(DataError, match=r"none of its 1 row.*emotion '-1'"):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_destination_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="in use"):
        prepare("synthetic:20", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_all_wrong_arguments_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prepare("synthetic:20", tmp_path / "out", size=4, validation_fraction=0.9, seed=-1)
    with pytest.raises(UsageError, match=r"--near-duplicates with --size 12: .* 16 pixels"):
        prepare("synthetic:20", tmp_path / "out", size=12, near_duplicates=True)
    assert [re.split(r"[ :]", problem)[0] for problem in caught.value.problems] == [
        "--size",
        "--validation-fraction",
        "--seed",
    ]


def test_an_error_in_a_worker_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_csv(tmp_path / "x.csv", [(0, np.zeros((48, 48), int), "Training")])
    opened = fer_ray.prepare.open_source(source)

    def vanish(*_: object) -> object:
        source.unlink(missing_ok=True)
        return opened

    monkeypatch.setattr(fer_ray.prepare, "open_source", vanish)
    with pytest.raises(SystemExit) as caught:
        main(["prepare", str(source), str(tmp_path / "out")])
    assert caught.value.code == 3
    assert "every node" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere", "out"], 3, "no such file"),
        (["synthetic:20", "out", "--format", "tar"], 2, "folder, zip"),
        (["synthetic:20"], 2, "DEST"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    environment = os.environ | {"NO_COLOR": "1"}
    command = [sys.executable, "-m", "fer_ray.prepare", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert words in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
