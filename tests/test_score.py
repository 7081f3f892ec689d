"""The score stage: one row an input whatever it is, the predictor's numbers, resuming, and wrong calls."""

import fcntl
import json
import os
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from hostile_files import listen
from matplotlib import cbook
from out_of_memory import ERRORS, room_for
from ray import cloudpickle
from ray.exceptions import RaySystemError

from fer_ray.config.schema import Config
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.images import image_files
from fer_ray.images.decode import decode
from fer_ray.images.faces import HaarDetector
from fer_ray.inference import network
from fer_ray.inference.checkpoint import CheckpointInfo, save_checkpoint
from fer_ray.inference.device import has_fast_bfloat16
from fer_ray.inference.predictor import Predictor
from fer_ray.models import build
from fer_ray.score import ScoreResult, score
from fer_ray.scoring import manifest, on_ray, parts
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.weights import SHIPPED_CHECKPOINT

TOLERANCE = 2e-2 if has_fast_bfloat16(torch.device("cpu")) else 1e-5  # batches of another size round otherwise
ALPHABETICAL = tuple(sorted(EMOTIONS))  # unlike the order of the rows, which must not follow it
FACES = [cv2.imencode(".jpg", face)[1].tobytes() for face in synthetic_faces(24, seed=0)[0]]


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"IEND"


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty.jpg": ("empty", lambda path: path.touch()),
    "text.png": ("not_an_image", lambda path: path.write_text("a note")),
    "page.jpg": ("not_an_image", lambda path: path.write_text("<html>not found</html>")),
    "cut.jpg": ("truncated", lambda path: path.write_bytes(FACES[0][: len(FACES[0]) // 2])),
    "damaged.jpg": ("damaged", lambda path: path.write_bytes(FACES[0][:700] + FACES[1][700:])),
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


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Chunks of 12 inputs and parts of two chunks; those sizes are the driver's business alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "CHUNK_FILES", 12)
        patch.setattr(parts, "PART_CHUNKS", 2)
        yield


@pytest.fixture(scope="module")
def result(ray_cluster: None, checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreResult:
    return score(checkpoint, [images], tmp_path_factory.mktemp("score") / "out", max_error_rate=1, batch_size=5)


def read_rows(output: Path | str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(Path(output).glob("part-*.parquet"))])


def statuses(output: Path | str) -> dict[str, str]:
    rows = read_rows(output)
    return {
        Path(path).name: status
        for path, status in zip(*rows.select(["path", "status"]).to_pydict().values(), strict=True)
    }


def test_one_row_a_file(result: ScoreResult, images: Path) -> None:
    rows = read_rows(result.path)
    status = dict(zip(rows["path"].to_pylist(), rows["status"].to_pylist(), strict=True))
    assert len(status) == len(rows) == len(FACES) + len(BROKEN)
    assert f"{images}/latin-\\xfc 23.jpg" in status
    assert {name: status[f"{images}/{name}"] for name in BROKEN} == {name: kind for name, (kind, _) in BROKEN.items()}
    assert list(status.values()).count("ok") == len(FACES)
    assert [path.decode("utf-8", "backslashreplace") for path in image_files.list_files([images])] == list(status)
    for row in rows.to_pylist():
        failed = row["status"] != "ok"
        assert (row["error"] is not None) == failed
        assert all((row[name] is None) == failed for name in ("label", "confidence", "p_sad", "tta_std", "entropy"))
    assert "face" not in rows.column_names


def test_the_output_is_parts_and_no_pieces(result: ScoreResult) -> None:
    image_files = {path.name for path in Path(result.path).iterdir()}
    assert image_files == {
        ".lock",
        "_job.json",
        "_manifest-0000.parquet",
        "_samples.parquet",
        "part-00000.parquet",
        "part-00001.parquet",
        "provenance.json",
        "summary.html",
        "summary.json",
    }


def test_numbers_are_the_predictors(result: ScoreResult, checkpoint: Path) -> None:
    rows = read_rows(result.path)
    rows = rows.filter(pa.compute.equal(rows["status"], "ok"))
    image_files = [path.replace("\\xfc", "\udcfc") for path in rows["path"].to_pylist()]
    predicted = Predictor(checkpoint, "flip").predict(image_files)
    assert rows["label"].to_pylist() == predicted.names
    assert len(set(predicted.names)) > 1
    probabilities = np.stack([rows[f"p_{name}"].to_numpy() for name in EMOTIONS], axis=1)
    np.testing.assert_allclose(probabilities, predicted.probabilities, atol=TOLERANCE)
    np.testing.assert_allclose(rows["confidence"].to_numpy(), predicted.confidence, atol=TOLERANCE)
    np.testing.assert_allclose(rows["tta_std"].to_numpy(), predicted.tta_std, atol=TOLERANCE)
    np.testing.assert_allclose(rows["entropy"].to_numpy(), predicted.entropy, atol=5 * TOLERANCE)


def test_summary_and_page(result: ScoreResult, images: Path) -> None:
    summary = json.loads((Path(result.path) / "summary.json").read_text())
    assert summary == result.summary
    assert summary["files"] == sum(summary["by_status"].values()) == len(FACES) + len(BROKEN)
    assert summary["failed"] == len(summary["first_failures"]) == len(BROKEN)
    assert sum(of["rows"] for of in summary["by_label"].values()) == summary["by_status"]["ok"]
    assert sum(of["share"] for of in summary["by_label"].values()) == pytest.approx(1)
    assert sum(summary["confidence_histogram"]) == len(FACES)
    assert summary["inputs"] == [str(images)]
    assert all(summary["stages"][stage]["seconds"] > 0 for stage in ("listing", "reading", "decoding", "predicting"))
    assert 0 < summary["seconds_from_first_batch"] < summary["seconds"]
    assert summary["precision"] in ("float32", "bfloat16")
    assert summary["batch_size"] >= 1
    page = (Path(result.path) / "summary.html").read_text()
    for text in ("The most confident labels", "not_an_image", "dangling.jpg", "Most of the time went to"):
        assert text in page
    samples = pq.read_table(Path(result.path) / "_samples.parquet").to_pydict()
    assert samples["group"].count("surest") == samples["group"].count("least sure") >= 11
    assert samples["confidence"][0] == max(samples["confidence"])


@pytest.fixture
def copied(result: ScoreResult, tmp_path: Path) -> Path:
    """Return a copy of the finished job's output, for a test to change."""
    return Path(shutil.copytree(result.path, tmp_path / "out"))


def test_resume_scores_what_is_missing_and_nothing_else(copied: Path, checkpoint: Path, images: Path) -> None:
    """As after a kill before a part was whole; a file that is gone since the listing keeps its row."""
    lost, kept = copied / "part-00001.parquet", copied / "part-00000.parquet"
    before, written = read_rows(copied), kept.stat().st_mtime_ns
    gone = next(
        row["path"] for row in pq.read_table(lost).to_pylist() if row["status"] == "ok" and "xfc" not in row["path"]
    )
    lost.rename(copied / f".{lost.name}.partial")
    (copied / "summary.json").unlink()
    away = Path(gone).rename(images / ".away")
    try:
        again = score(checkpoint, [images], copied, resume=True, max_error_rate=1, batch_size=7)
    finally:
        away.rename(gone)
    after = read_rows(copied)
    assert after["path"].equals(before["path"])
    expected = ["missing" if row["path"] == gone else row["status"] for row in before.to_pylist()]
    assert after["status"].to_pylist() == expected
    assert kept.stat().st_mtime_ns == written
    assert again.summary["scored_in_this_run"] == len(before) - 24


def test_pieces_of_a_killed_job_are_not_scored_again(copied: Path, checkpoint: Path, images: Path) -> None:
    first, second = copied / "part-00000.parquet", copied / "part-00001.parquet"
    table = pq.read_table(first)
    marked = table.set_column(2, "error", pa.array(["from its piece"] * len(table)))
    (copied / "_pieces").mkdir()
    for number, rows in ((0, marked.slice(0, 12)), (2, pq.read_table(second))):
        pq.write_table(rows, copied / "_pieces" / f"{number:07d}.parquet")  # piece 2: its part is whole already
    first.unlink()
    again = score(checkpoint, [images], copied, resume=True, max_error_rate=1)
    assert again.summary["scored_in_this_run"] == 12
    assert [error == "from its piece" for error in read_rows(copied)["error"].to_pylist()[:24]] == [True] * 12 + [
        False
    ] * 12
    assert not (copied / "_pieces").exists()


def test_new_files_are_found_by_resume(ray_cluster: None, checkpoint: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "b.jpg").write_bytes(FACES[0])
    score(checkpoint, [folder], output)
    assert statuses(output) == {"b.jpg": "ok"}
    (folder / "a.jpg").write_bytes(FACES[1])
    again = score(checkpoint, [folder], output, resume=True)
    assert again.summary["scored_in_this_run"] == 1
    assert statuses(output) == {"b.jpg": "ok", "a.jpg": "ok"}
    third = score(checkpoint, [folder], output, resume=True)
    assert third.summary["stages"] == again.summary["stages"]  # of the run that did the work


def test_too_many_errors_after_writing_all(result: ScoreResult, checkpoint: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"12 of 36 inputs failed, 33.33%; --max-error-rate allows 1.00%.*--resume"):
        score(checkpoint, [images], result.path, resume=True)
    assert len(read_rows(result.path)) == len(FACES) + len(BROKEN)


def test_lists_repeats_containers_and_csv(ray_cluster: None, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    shard, listed, output = tmp_path / "faces.zip", tmp_path / "list.txt", tmp_path / "out"
    with zipfile.ZipFile(shard, "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.jpg", FACES[number])
        archive.writestr("labels.json", "{}")
    listed.write_text("\n".join([f"{images}/00.jpg", f"{images}/empty.jpg", f"{images}/00.jpg", "gone.jpg"]))
    result = score(checkpoint, [listed, shard, images / "0[12].jpg"], output, format="csv", max_error_rate=1)
    (file,) = output.glob("part-*.csv")
    rows = pa_csv.read_csv(file)
    names = [path.rpartition("/")[2] for path in rows["path"].to_pylist()]
    assert names == [
        "00.jpg",
        "00.jpg",
        "empty.jpg",
        "gone.jpg",
        "0.jpg",
        "1.jpg",
        "2.jpg",
        "3.jpg",
        "4.jpg",
        "01.jpg",
        "02.jpg",
    ]
    assert rows["status"].to_pylist() == ["ok", "ok", "empty", "missing"] + 7 * ["ok"]
    probabilities = rows["p_happy"].to_pylist()
    assert probabilities[0] == probabilities[1] == pytest.approx(probabilities[4], abs=TOLERANCE)  # the same face
    assert (result.summary["files"], result.summary["failed"]) == (11, 2)


def test_faces_are_found_and_labelled(ray_cluster: None, checkpoint: Path, tmp_path: Path) -> None:
    photo = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    two = np.concatenate([decode(photo.read_bytes()).pixels] * 2, axis=1)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.txt").write_text("no image")
    cv2.imwrite(str(folder / "b.png"), two)
    cv2.imwrite(str(folder / "c.png"), np.full((200, 300), 128, np.uint8))
    output = tmp_path / "out"
    result = score(checkpoint, [folder, photo], output, faces="detect", max_error_rate=0.5)
    rows = read_rows(output).to_pylist()
    assert [(Path(row["path"]).name, row["status"], row["face"]) for row in rows] == [
        ("a.txt", "not_an_image", None),
        ("b.png", "ok", 0),
        ("b.png", "ok", 1),
        ("c.png", "no_face", None),
        ("grace_hopper.jpg", "ok", 0),
    ]
    (face,) = HaarDetector()(decode(photo.read_bytes()).pixels)
    last = rows[-1]
    assert tuple(last[f"face_{side}"] for side in ("x", "y", "width", "height")) == pytest.approx(face[:4])
    crop = decode(photo.read_bytes()).pixels[
        round(face.y) : round(face.y + face.height), round(face.x) : round(face.x + face.width)
    ]
    assert last["confidence"] == pytest.approx(
        Predictor(checkpoint, "flip").predict([crop]).confidence[0], abs=TOLERANCE
    )
    assert {round(row["face_x"]) > two.shape[1] // 2 for row in rows[1:3]} == {False, True}
    assert result.summary["by_status"] == {"ok": 2, "not_an_image": 1, "no_face": 1}
    assert (result.summary["failed"], result.summary["rows_with_label"]) == (1, 3)
    assert "no_face" in (output / "summary.html").read_text()
    with pytest.raises(UsageError, match=r"another faces: the output was scored with haarcascade.*the request is none"):
        score(checkpoint, [folder, photo], output, resume=True)


def test_several_checkpoints_predict_together(
    ray_cluster: None, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", seed=1)
    score(None, [str(checkpoint), str(other), str(images / "0?.jpg")], tmp_path / "out", tta="adaptive")
    rows = read_rows(tmp_path / "out")
    expected = Predictor([checkpoint, other], "adaptive").predict(rows["path"].to_pylist())
    np.testing.assert_allclose(rows["confidence"].to_numpy(), expected.confidence, atol=TOLERANCE)


def test_resume_refuses_another_job(result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another tta: the output was scored with flip, the request is none"):
        score(checkpoint, [images], result.path, resume=True, tta="none")
    with pytest.raises(UsageError, match="another checkpoint"):
        score(make_checkpoint(tmp_path / "other", seed=1), [images], result.path, resume=True)
    with pytest.raises(UsageError, match=r"other inputs.*\n.*--format csv: its files are parquet"):
        score(checkpoint, [images / "00.jpg"], result.path, resume=True, format="csv")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="not the output of a scoring job"):
        score(checkpoint, [images], tmp_path, resume=True)


def test_wrong_calls(result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="in use"):
        score(checkpoint, [images], result.path)
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        score(checkpoint, [images, tmp_path / "nowhere"], out)
    with pytest.raises(DataError, match="not a checkpoint"):
        score(images, [images], out)
    with pytest.raises(UsageError) as caught:
        score(
            checkpoint,
            [images],
            out,
            tta="flap",
            format="xml",
            batch_size=0,
            gpus_per_actor=2,
            timeout_s=0,
            max_error_rate=2,
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "--tta flap",
        "--format xml",
        "--batch-size 0",
        "--gpus-per-actor 2",
        "--timeout 0",
        "--max-error-rate 2",
    ]
    assert "Did you mean 'flip'?" in caught.value.problems[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        score(checkpoint, [tmp_path / "empty"], out)
    within = images / "labels"
    with pytest.raises(UsageError, match=r"labels: the output is inside the input .*images\."):
        score(checkpoint, [images], within)
    with pytest.raises(UsageError, match=r": a checkpoint after an input. Name checkpoints first."):
        score(None, [str(images), str(checkpoint)], out)
    assert not out.exists() and not within.exists()


def test_two_jobs_do_not_write_one_output(result: ScoreResult, checkpoint: Path, images: Path) -> None:
    with (
        disk_lock(Path(result.path)),
        pytest.raises(UsageError, match=r"another job is writing there\. Wait for its end"),
    ):
        score(checkpoint, [images], result.path, resume=True)


@contextmanager
def disk_lock(folder: Path) -> Iterator[None]:
    """As another process would hold it."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_without_a_checkpoint_the_network_of_the_package_labels(
    ray_cluster: None, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(images / "00.jpg"), str(images / "01.jpg")]
    score(None, names, tmp_path / "out", tta="flip")
    told = capsys.readouterr()
    assert "the network that comes with fer_ray" in told.err
    assert "images/s by stage: listing" in told.out and "Most of the time went to starting Ray" in told.out
    expected = Predictor(SHIPPED_CHECKPOINT, tta="flip").predict(FACES[:2]).probabilities
    rows = read_rows(tmp_path / "out")
    found = np.column_stack([rows[f"p_{name}"].to_numpy() for name in EMOTIONS])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_run_is_no_input_where_its_checkpoint_was_meant(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint")
    with pytest.raises(DataError, match=r"not a checkpoint.*Did you mean .*run/checkpoint\?"):
        score(None, [str(tmp_path / "run"), str(images)], tmp_path / "out")
    with pytest.raises(UsageError, match="no INPUT"):
        score(None, [str(checkpoint)], tmp_path / "out")


def test_a_worker_fault_is_a_plain_error(ray_cluster: None, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """The worker finds out that the weights are damaged; the call can then be mended and made again."""
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        score(damaged, [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_is_told(copied: Path, checkpoint: Path, images: Path) -> None:
    part = copied / "part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(DataError, match=r"has rows of 23 inputs, 24 expected. Remove it and run again with --resume"):
        score(checkpoint, [images], copied, resume=True, max_error_rate=1)


def test_the_end_of_ray_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise RaySystemError("the store died\nand many lines more")

    ended = on_ray._until_ray_dies(batches())
    assert next(ended) == 1
    with pytest.raises(FerRayError, match=r"ended the job: RaySystemError: .* store died. The rows .* --resume.$"):
        next(ended)

    def died() -> None:
        raise FerRayError("Ray's raylet died.")

    monkeypatch.setattr(on_ray, "require_running", died)
    with pytest.raises(
        FerRayError, match=r"^Ray's raylet died. The rows written so far are kept: continue with --resume.$"
    ):
        list(on_ray._until_ray_dies(batches()))


class ShortOfMemory(on_ray._ScoringActor):
    """An actor whose memory has room for one image a pass."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        network.forward_batches = room_for(1, ERRORS["driver"], network.forward_batches)


class WithoutMemory(on_ray._ScoringActor):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        network.forward_batches = room_for(0, ERRORS["driver"], network.forward_batches)


def test_where_memory_runs_out_batches_are_halved(
    result: ScoreResult,
    checkpoint: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (sys.modules[__name__], sys.modules["out_of_memory"]):
        cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr(on_ray, "_ScoringActor", ShortOfMemory)
    short = score(checkpoint, [images], tmp_path / "short", batch_size=8, max_error_rate=1)
    assert short.summary["batch_size"] == 1
    assert capsys.readouterr().err.count("Memory ran out: from now on 1 image a forward pass") == 1
    rows, others = (read_rows(place.path).sort_by("path") for place in (result, short))
    assert rows["path"].equals(others["path"]) and rows["status"].equals(others["status"])
    for there, own in zip(rows["p_happy"].to_pylist(), others["p_happy"].to_pylist(), strict=True):
        assert there == own or there == pytest.approx(own, abs=TOLERANCE)

    monkeypatch.setattr(on_ray, "_ScoringActor", WithoutMemory)
    with pytest.raises(UsageError, match=r"out of memory: CUDA error: out of memory\. Memory doesn.t hold the network"):
        score(checkpoint, [images], tmp_path / "none", batch_size=32)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("nodes", "part", "planned"),
    [
        ([{"CPU": 64, "GPU": 8}], 0.4, (16, 4, 0.4)),
        ([{"CPU": 16, "GPU": 1}, {"CPU": 16, "GPU": 1}], 0.6, (2, 16, 0.6)),
        ([{"CPU": 2, "GPU": 1}], 0.25, (2, 1, 0.25)),  # CPUs for two of four
        ([{"CPU": 8, "GPU": 2}, {"CPU": 32}], 1, (2, 4, 1)),
        ([{"CPU": 8}, {"CPU": 4}], 1, (12, 1, 0)),
        ([{"GPU": 4}, {"CPU": 4}], 1, (4, 1, 0)),  # a head that takes no tasks
    ],
)
def test_actors_share_gpus_as_far_as_they_go(
    nodes: list[dict[str, float]], part: float, planned: tuple[int, int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "nodes", lambda: nodes)
    assert on_ray.plan(part) == planned
