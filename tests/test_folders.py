"""Output folders: files whole or absent."""

from pathlib import Path

import pytest

from fer_ray.data.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.files import claim_output
from fer_ray.folders import Folder, claim_folder


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
    with pytest.raises(UsageError, match="no known kind of URL"):
        claim_folder("hdfs://host/out")


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
