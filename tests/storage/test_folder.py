"""Output folders: files whole or absent."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets_made import write_prepared

from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.prepare import prepare
from fer_ray.report import report
from fer_ray.score import score
from fer_ray.storage.folder import Folder, claim_folder
from fer_ray.storage.local import claim_output
from fer_ray.storage.object_store import path_below, require_apart
from fer_ray.train import train
from fer_ray.tune import tune
from fer_ray.weights import SHIPPED_CHECKPOINT

SPACE = Path(__file__).parents[2] / "search_spaces" / "fast.yaml"


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "out")
    assert folder.names() == [] and folder.is_empty()
    folder.make()
    folder.write("a.json", "{}")
    folder.write("below/b.bin", b"\0")
    assert folder.names() == ["a.json"] and folder.names("below") == ["below/b.bin"] and not folder.is_empty()
    assert folder.exists("a.json") and not folder.exists("below") and folder.read("below/b.bin") == b"\0"
    folder.write("a.json", "[]")
    assert folder.read("a.json") == b"[]"
    with pytest.raises(OSError):
        folder.read("absent")
    folder.remove("a.json", "below/b.bin", "absent")
    folder.remove_folder("below")
    assert folder.is_empty()


def test_writing_in_place(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with folder.writing("big") as path:
        path.write_text("whole")
        assert not folder.exists("big")
    assert folder.read("big") == b"whole"
    with pytest.raises(RuntimeError), folder.writing("big") as path:
        path.write_text("half")
        raise RuntimeError
    with folder.writing("none"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    with folder.as_local("big") as place:
        assert place == tmp_path


def test_claims(tmp_path: Path) -> None:
    assert claim_folder(tmp_path / "new").local == tmp_path / "new"
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="in use"):
        claim_folder(tmp_path)
    with pytest.raises(UsageError, match="nothing to resume"):
        claim_folder(tmp_path / "new", resume=True)
    with pytest.raises(UsageError, match="unknown kind of URL"):
        claim_folder("hdfs://host/out")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "dataset"
    write_prepared(folder, {"train": [0, 1, 2] * 20, "validation": [0, 1, 2] * 4})
    return folder


STAGES: dict[str, Callable[[Path, Path], object]] = {
    "prepare": lambda dataset, output: prepare(dataset, output),
    "train": lambda dataset, output: train(dataset, Config(), output),
    "tune": lambda dataset, output: tune(dataset, [SPACE], output, trials=1),
    "evaluate, its dataset": lambda dataset, output: evaluate(SHIPPED_CHECKPOINT, dataset, output),
    "evaluate, its checkpoint": lambda dataset, output: evaluate([SHIPPED_CHECKPOINT, dataset], "elsewhere", output),
    "report": lambda dataset, output: report([SHIPPED_CHECKPOINT, dataset], output),
    "score, its checkpoint": lambda dataset, output: score(dataset, [SPACE.parent], output),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("output", ["new", "train/new", "../link/new", "../beside/../dataset/new"])
def test_an_output_in_an_input_is_refused(stage: str, output: str, dataset: Path) -> None:
    before = sorted(dataset.parent.rglob("*"))
    link = dataset.parent / "link"
    link.symlink_to(dataset)
    try:
        with pytest.raises(UsageError, match=r"new: the output is inside the input .*dataset\. Choose an"):
            STAGES[stage](dataset, dataset / output)
    finally:
        link.unlink()
    assert sorted(dataset.parent.rglob("*")) == before


def test_outputs_beside_inputs_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    require_apart("../labels", ["."])
    require_apart(tmp_path / "photos-labels", ["."])
    require_apart("s3://bucket/photos-labels", ["s3://bucket/photos", "."])
    require_apart("labels", ["s3://bucket"])
    assert path_below("a/b", ".") == "a/b" and path_below(".", tmp_path / "photos") == ""


def test_relative_paths_of_a_job_are_told(tmp_path: Path) -> None:
    """`ray job submit --working-dir` runs a job in a copy, whose data would be missing and whose outputs be lost."""
    uploaded = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    uploaded.mkdir(parents=True)
    for claimed in (claim_folder, claim_output):
        with pytest.raises(UsageError, match=r"this output would be lost after the job\. \(This is a job's upload"):
            claimed(uploaded / "labels")
    with pytest.raises(DataError, match=r"no such folder.*Name absolute paths on storage that every node sees"):
        PreparedDataset(uploaded / "fer-data")
    with pytest.raises(DataError) as failure:
        PreparedDataset(tmp_path / "fer-data")
    assert "uploaded" not in str(failure.value)
