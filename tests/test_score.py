"""The score stage: one row a file whatever it is, the predictor's numbers, resuming, and wrong calls."""

import json
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fer_ray.config import Config
from fer_ray.data import disk, manifest, parts
from fer_ray.data.images import decode
from fer_ray.data.synthetic import synthetic_faces
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.learning.checkpoint import CheckpointInfo, save_checkpoint
from fer_ray.learning.predictor import Predictor
from fer_ray.learning.tta import VIEWS
from fer_ray.models import build
from fer_ray.score import ScoreResult, command, score
from fer_ray.weights import SHIPPED_CHECKPOINT

ALPHABETICAL = tuple(sorted(EMOTIONS))  # unlike the order of the rows, which must not follow it
FACES = [cv2.imencode(".jpg", face)[1].tobytes() for face in synthetic_faces(24, seed=0)[0]]


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"IEND"


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        previous = Path.cwd()
        os.chdir(path.parent)  # the address of a socket may not be long
        try:
            server.bind(path.name)
        finally:
            os.chdir(previous)


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty.jpg": ("empty", lambda path: path.touch()),
    "text.png": ("not_an_image", lambda path: path.write_text("a note")),
    "page.jpg": ("not_an_image", lambda path: path.write_text("<html>not found</html>")),
    "cut.jpg": ("truncated", lambda path: path.write_bytes(FACES[0][: len(FACES[0]) // 2])),
    "header.png": ("truncated", lambda path: path.write_bytes(png_header(48, 48)[:20])),
    "bomb.png": ("too_large", lambda path: path.write_bytes(png_header(60_000, 60_000))),
    "flat.png": ("undecodable", lambda path: path.write_bytes(png_header(0, 48))),
    "dangling.jpg": ("missing", lambda path: path.symlink_to("nowhere")),
    "circle.jpg": ("unreadable", lambda path: path.symlink_to(path.name)),
    "pipe.jpg": ("not_a_file", os.mkfifo),
    "socket.jpg": ("not_a_file", listen),
}


def make_checkpoint(path: Path, seed: int = 0) -> Path:
    config = Config()
    torch.manual_seed(seed)
    weights = build(config.model, 48).state_dict()
    info = CheckpointInfo(
        config=config,
        label_names=ALPHABETICAL,
        mean=0.5,
        std=0.25,
        size=48,
        epoch=1,
        metrics={},
        temperature=0.1,
        dataset_fingerprint="none",
    )
    save_checkpoint(path, weights, info)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("score") / "checkpoint")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 24 faces, some under odd names, and every kind of broken file."""
    folder = tmp_path_factory.mktemp("score") / "images"
    (folder / "below" / "folder.jpg").mkdir(parents=True)
    (folder / "below" / "loop").symlink_to(folder)
    names: list[bytes] = [b"%02d.jpg" % number for number in range(20)]
    names += [b"below/folder.jpg/20.png", b"below/21", "Grüße 22.txt".encode(), b"latin-\xfc 23.jpg"]
    for name, face in zip(names, FACES, strict=True):
        (folder / os.fsdecode(name)).write_bytes(face)
    (folder / ".hidden.jpg").write_bytes(FACES[0])
    for broken, (_, make) in BROKEN.items():
        make(folder / broken)
    return folder


@pytest.fixture(scope="module")
def result(ray_cluster: None, checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "CHUNK_FILES", 12)
        return score(checkpoint, [images], tmp_path_factory.mktemp("score") / "out", max_error_rate=1, batch_size=5)


def read_rows(output: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(output.glob("part-*.parquet"))])


def test_one_row_a_file(result: ScoreResult, images: Path) -> None:
    rows = read_rows(result.path)
    status = dict(zip(rows["path"].to_pylist(), rows["status"].to_pylist(), strict=True))
    assert len(status) == len(rows) == len(FACES) + len(BROKEN)
    assert f"{images}/latin-\\xfc 23.jpg" in status
    assert {name: status[f"{images}/{name}"] for name in BROKEN} == {name: kind for name, (kind, _) in BROKEN.items()}
    assert list(status.values()).count("ok") == len(FACES)
    assert [path.decode("utf-8", "backslashreplace") for path in disk.list_files([images])] == list(status)
    for row in rows.to_pylist():
        failed = row["status"] != "ok"
        assert (row["error"] is not None) == failed
        assert all((row[name] is None) == failed for name in ("label", "confidence", "p_sad", "tta_std"))


def test_numbers_are_the_predictors(result: ScoreResult, checkpoint: Path) -> None:
    rows = read_rows(result.path)
    rows = rows.filter(pa.compute.equal(rows["status"], "ok"))
    files = [path.replace("\\xfc", "\udcfc") for path in rows["path"].to_pylist()]
    predicted = Predictor(checkpoint, "flip").predict(
        np.stack([decode(Path(p).read_bytes(), 48).pixels for p in files])
    )
    labels = rows["label"].to_pylist()
    assert labels == [ALPHABETICAL[label] for label in predicted.labels]
    assert len(set(labels)) > 1
    probabilities = np.stack([rows[f"p_{name}"].to_numpy() for name in ALPHABETICAL], axis=1)
    np.testing.assert_allclose(probabilities, predicted.probabilities, atol=1e-5)
    np.testing.assert_allclose(rows["confidence"].to_numpy(), predicted.probabilities.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(rows["tta_std"].to_numpy(), predicted.tta_std, atol=1e-5)


def test_summary(result: ScoreResult, images: Path) -> None:
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary == result.summary
    assert summary["files"] == sum(summary["by_status"].values()) == len(FACES) + len(BROKEN)
    assert sum(of["files"] for of in summary["by_label"].values()) == summary["by_status"]["ok"]
    assert sum(of["share"] for of in summary["by_label"].values()) == pytest.approx(1)
    assert summary["inputs"] == [str(images)]


def test_resume_scores_what_is_missing_and_nothing_else(
    result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    """As after a kill between two renames; a file that is gone since the listing keeps its row."""
    output = tmp_path / "out"
    shutil.copytree(result.path, output)
    lost, kept = parts.part_file(output, 1), parts.part_file(output, 0)
    before, written = read_rows(output), kept.stat().st_mtime_ns
    gone = next(row["path"] for row in pq.read_table(lost).to_pylist() if row["status"] == "ok")
    lost.rename(output / f".{lost.name}.partial")
    (output / "summary.json").unlink()
    away = Path(gone).rename(images / ".away")
    try:
        again = score(checkpoint, [images], output, resume=True, max_error_rate=1, batch_size=7)
    finally:
        away.rename(gone)
    after = read_rows(output)
    assert after["path"].equals(before["path"])
    expected = ["missing" if row["path"] == gone else row["status"] for row in before.to_pylist()]
    assert after["status"].to_pylist() == expected
    assert kept.stat().st_mtime_ns == written
    assert again.summary["scored_in_this_run"] == 12
    assert not list(output.glob(".part*"))


def test_too_many_errors_after_writing_all(result: ScoreResult, checkpoint: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"11 of 35 files failed, 31.43%; --max-error-rate allows 1.00%.*--resume"):
        score(checkpoint, [images], result.path, resume=True)
    assert len(read_rows(result.path)) == len(FACES) + len(BROKEN)
    again = json.loads((result.path / "summary.json").read_text())
    assert again == result.summary  # with the speed of the run that did the work


def test_resume_refuses_another_job(result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another tta: it was scored with flip, asked for is none"):
        score(checkpoint, [images], result.path, resume=True, tta="none")
    with pytest.raises(UsageError, match="another checkpoint"):
        score(make_checkpoint(tmp_path / "other", seed=1), [images], result.path, resume=True)
    with pytest.raises(UsageError, match="other inputs"):
        score(checkpoint, [images / "00.jpg"], result.path, resume=True)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="not the output of a scoring job"):
        score(checkpoint, [images], tmp_path, resume=True)


def test_wrong_calls(result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="in use"):
        score(checkpoint, [images], result.path)
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        score(checkpoint, [images, tmp_path / "nowhere"], out)
    with pytest.raises(UsageError, match="scored twice"):
        score(checkpoint, [images, images / "below"], out)
    with pytest.raises(DataError, match="not a checkpoint"):
        score(tmp_path, [images], out)
    with pytest.raises(UsageError, match=r"--batch-size 0.*\n--max-error-rate 2"):
        score(checkpoint, [images], out, batch_size=0, max_error_rate=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file in there"):
        score(checkpoint, [tmp_path / "empty"], out)
    assert not out.exists()


def test_without_a_checkpoint_the_network_of_the_package_labels(
    ray_cluster: None, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [images / "00.jpg", images / "01.jpg"]
    command(names, tmp_path / "out", tta="flip")
    assert "the network that comes with fer_ray" in capsys.readouterr().err
    faces = np.stack([decode(face, 48).pixels for face in FACES[:2]])
    expected = Predictor(SHIPPED_CHECKPOINT, tta="flip").predict(faces).probabilities
    rows = read_rows(tmp_path / "out")
    found = np.column_stack([rows[f"p_{name}"].to_numpy() for name in EMOTIONS])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_run_is_no_input_where_its_checkpoint_was_meant(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint")
    with pytest.raises(DataError, match=r"not a checkpoint.*Did you mean .*run/checkpoint\?"):
        command([tmp_path / "run", images], tmp_path / "out")
    with pytest.raises(UsageError, match="no INPUT"):
        command([checkpoint], tmp_path / "out")


def test_a_worker_fault_is_a_plain_error(ray_cluster: None, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """The worker finds out that there is no such TTA; the call can then be mended and made again."""
    with pytest.raises(UsageError, match="tta = 'twelve': choose one of"):
        score(checkpoint, [images], tmp_path / "out", tta="twelve")
    assert not (tmp_path / "out").exists()


def test_list_is_ordered_and_a_folder_that_cannot_be_listed_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a.jpg", "c/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"/c"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listed = [os.fsdecode(path).removeprefix(f"{tmp_path}/") for path in disk.list_files([tmp_path])]
    assert listed == ["a.jpg", "b/1.jpg", "b/2.jpg", "c"]


def test_file_of_no_permission_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # whoever runs this may be root, who can read all
    assert parts.read_image(b"/face.jpg", 48) == parts.Problem("unreadable", "Permission denied")


def test_help_names_every_tta() -> None:
    """The stage spells them out, since their module would import torch in the driver."""
    (option,) = get_type_hints(command, include_extras=True)["tta"].__metadata__
    assert ", ".join(VIEWS) in option.help
