"""The score stage: one row an input whatever it is, the predictor's numbers, resuming, and wrong calls."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from checkpoints_made import made_checkpoint, write_checkpoint
from hostile_files import CONTENTS, DEEP, MADE, deep

from fer_ray import score as stage
from fer_ray.cluster import connect
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.images.image_files import list_files, path_text
from fer_ray.inference.device import has_fast_bfloat16
from fer_ray.inference.predictor import Predictor
from fer_ray.score import ScoreResult, score
from fer_ray.scoring import chunk_scorer
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.weights import SHIPPED_CHECKPOINT

TOLERANCE = 2e-2 if has_fast_bfloat16(torch.device("cpu")) else 1e-5  # batches of another size round otherwise
FACES = [cv2.imencode(".jpg", face)[1].tobytes() for face in synthetic_faces(24, seed=0)[0]]


STATUS = Counter(ok=20, damaged=1) + Counter(status for kind in (CONTENTS, MADE, DEEP) for status, _ in kind.values())
FILES, FAILED = STATUS.total(), STATUS.total() - STATUS["ok"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = made_checkpoint(label_names=sorted(EMOTIONS))  # unlike the order of the rows, which must not follow it
    return write_checkpoint(tmp_path_factory.mktemp("score") / "checkpoint", made)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("score") / "other", made_checkpoint(seed=1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 20 faces and of every kind of odd and broken file."""
    folder = tmp_path_factory.mktemp("score") / "images"
    (folder / "below" / "folder.jpg").mkdir(parents=True)
    (folder / "below" / "loop").symlink_to(folder)
    for number in range(20):
        (folder / ("below/folder.jpg" if number > 14 else "") / f"{number:02}.jpg").write_bytes(FACES[number])
    (folder / ".hidden.jpg").write_bytes(FACES[0])
    (folder / "damaged.jpg").write_bytes(FACES[0][:700] + FACES[1][700:])
    for name, (_, content) in CONTENTS.items():
        (folder / name).write_bytes(content)
    for raw, (_, make) in MADE.items():
        make(folder / os.fsdecode(raw))
    for name, (_, length) in DEEP.items():
        deep(folder / name, length)
    return folder


@pytest.fixture(scope="module")
def result(checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_scorer, "CHUNK_SECONDS", 0)  # so that each part holds a batch
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})  # the first one too
        return score(checkpoint, [images], tmp_path_factory.mktemp("score") / "out", max_error_rate=1, batch_size=16)


def read_rows(output: Path | str | None) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(Path(str(output)).glob("part-*.parquet"))])


def test_one_row_a_file(result: ScoreResult, images: Path) -> None:
    rows = read_rows(result.path)
    status = dict(zip(rows["path"].to_pylist(), rows["status"].to_pylist(), strict=True))
    expected = {name: kind for name, (kind, _) in CONTENTS.items()} | {"damaged.jpg": "damaged"}
    expected |= {path_text(name): kind for name, (kind, _) in MADE.items()}
    assert {name: status[f"{images}/{name}"] for name in expected} == expected
    for deep_name, (kind, _) in DEEP.items():
        assert [status[path] for path in status if path.startswith(f"{images}/{deep_name}/")] == [kind]
    assert list(map(path_text, list_files([images]))) == list(status) and len(rows) == FILES
    for row in rows.to_pylist():
        failed = row["status"] != "ok"
        assert (row["error"] is not None) == failed
        assert all((row[name] is None) == failed for name in ("label", "confidence", "p_sad", "tta_std", "entropy"))
    assert "face" not in rows.column_names
    assert not Path("/tmp/owned").exists()  # a pickle among them would make it
    names = {path.name for path in Path(str(result.path)).iterdir()}
    others = ".lock _job.json _manifest-0000.parquet _samples.json provenance.json summary.html summary.json"
    assert {name for name in names if not name.startswith("part-")} == set(others.split())
    assert {"part-000000000-000000015.parquet", "part-000000016-000000031.parquet"} < names


def test_numbers_are_the_predictors(result: ScoreResult, checkpoint: Path) -> None:
    rows = read_rows(result.path)
    rows = rows.filter(pc.match_substring_regex(rows["path"], r"/\d\d\.jpg$"))
    paths = rows["path"].to_pylist()
    predicted = Predictor(checkpoint, "flip").predict(paths)
    assert rows["label"].to_pylist() == predicted.names
    assert len(set(predicted.names)) > 1
    probabilities = np.stack([rows[f"p_{name}"].to_numpy() for name in EMOTIONS], axis=1)
    np.testing.assert_allclose(probabilities, predicted.probabilities, atol=TOLERANCE)
    np.testing.assert_allclose(rows["confidence"].to_numpy(), predicted.confidence, atol=TOLERANCE)
    np.testing.assert_allclose(rows["tta_std"].to_numpy(), predicted.tta_std, atol=TOLERANCE)
    np.testing.assert_allclose(rows["entropy"].to_numpy(), predicted.entropy, atol=5 * TOLERANCE)


def test_summary_and_page(result: ScoreResult, images: Path) -> None:
    folder = Path(str(result.path))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == result.summary
    assert summary["by_status"] == STATUS
    assert sum(of["rows"] for of in summary["by_label"].values()) == summary["by_status"]["ok"]
    assert sum(of["share"] for of in summary["by_label"].values()) == pytest.approx(1)
    assert sum(summary["confidence_histogram"]) == STATUS["ok"]
    assert summary["inputs"] == [str(images)]
    page = (folder / "summary.html").read_text()
    assert "not_an_image" in page and "circle.jpg" in page
    samples = json.loads((folder / "_samples.json").read_text())
    confidences = [sample["confidence"] for sample in samples]
    assert len(samples) == 24 and confidences == sorted(confidences, reverse=True)
    confidence = read_rows(folder)["confidence"]
    assert (confidences[0], confidences[-1]) == (pc.max(confidence).as_py(), pc.min(confidence).as_py())


def test_ray_gives_the_same_rows_and_restarts_nothing(
    ray_cluster: None, result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    job = score(checkpoint, [images], tmp_path / "out", max_error_rate=1, batch_size=16, ray=True)
    assert read_rows(job.path).equals(read_rows(result.path))  # to the last bit
    assert len(list((tmp_path / "out").glob("part-*"))) > 2  # actors share the job
    for name in ("by_status", "by_label", "confidence_histogram", "fingerprint"):
        assert job.summary[name] == result.summary[name]
    again = score(checkpoint, [images], tmp_path / "out", max_error_rate=1, ray=True, resume=True)
    assert (again.summary["scored_in_this_run"], again.summary["stages"]) == (FILES, job.summary["stages"])


def test_resume_scores_what_is_missing(result: ScoreResult, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """As after a kill before a part was whole; a file that is gone since the listing keeps its row."""
    copied = Path(shutil.copytree(str(result.path), tmp_path / "out"))
    lost, kept = sorted(copied.glob("part-*"))[1:3]
    before, written = read_rows(copied), kept.stat().st_mtime_ns
    rows = pq.read_table(lost).to_pylist()
    gone = next(row["path"] for row in rows if row["status"] == "ok" and "xfc" not in row["path"])
    lost.rename(copied / f".{lost.name}.partial")
    (copied / "summary.json").unlink()
    away = Path(gone).rename(images / ".away")
    try:
        again = score(checkpoint, [images], copied, resume=True, max_error_rate=1)
    finally:
        away.rename(gone)
    after = read_rows(copied)
    assert after["path"].equals(before["path"])
    expected = ["missing" if row["path"] == gone else row["status"] for row in before.to_pylist()]
    assert after["status"].to_pylist() == expected
    assert kept.stat().st_mtime_ns == written
    assert again.summary["scored_in_this_run"] == len(rows)
    same = [row for row, path in enumerate(before["path"].to_pylist()) if path != gone]
    assert after.take(same)["p_sad"].equals(before.take(same)["p_sad"])

    pq.write_table(pq.read_table(kept).slice(1), kept)
    with pytest.raises(DataError, match=r"has rows of 15 inputs, 16 expected. Remove it and run again with --resume"):
        score(checkpoint, [images], copied, resume=True, max_error_rate=1)


def test_resume_finds_new_files(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "b.jpg").write_bytes(b"")
    score(checkpoint, [folder], output, max_error_rate=1)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(FACES[1])
    again = score(checkpoint, [folder], output, resume=True, max_error_rate=1)
    assert (again.summary["scored_in_this_run"], again.summary["files"]) == (1, 2)
    printed = capsys.readouterr()
    assert "1 new input since the last run" in printed.err and "images/s by stage" in printed.out
    rows = [(Path(row["path"]).name, row["status"]) for row in read_rows(output).to_pylist()]
    assert rows == [("b.jpg", "empty"), ("a.jpg", "ok")]  # though b.jpg was repaired
    third = score(checkpoint, [folder], output, resume=True, max_error_rate=1)
    assert third.summary["stages"] == again.summary["stages"]  # of the run that did the work
    printed = capsys.readouterr()
    assert "images/s" not in printed.out and "choose a new --output" in printed.out


def test_lists_repeats_containers_and_csv(checkpoint: Path, images: Path, tmp_path: Path) -> None:
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
    assert " ".join(names) == "00.jpg empty.jpg 00.jpg gone.jpg 0.jpg 1.jpg 2.jpg 3.jpg 4.jpg 01.jpg 02.jpg"
    assert rows["status"].to_pylist() == ["ok", "empty", "ok", "missing"] + 7 * ["ok"]
    p = rows["p_happy"].to_pylist()
    assert p[0] == p[2] == pytest.approx(p[4], abs=TOLERANCE)  # the same face
    assert (result.summary["files"], result.summary["failed"]) == (11, 2)


def test_several_checkpoints_predict_together(checkpoint: Path, other: Path, images: Path, tmp_path: Path) -> None:
    score(None, [checkpoint, other, images / "0?.jpg"], tmp_path / "out", tta="adaptive")
    rows = read_rows(tmp_path / "out")
    expected = Predictor([checkpoint, other], "adaptive").predict(rows["path"].to_pylist())
    np.testing.assert_allclose(rows["confidence"].to_numpy(), expected.confidence, atol=TOLERANCE)


def test_printed_rows(images: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(images / name) for name in ("00.jpg", "empty.jpg")]
    with pytest.raises(DataError, match=r"1 of 2 inputs failed.*All rows are printed above"):
        score(None, names)
    out, err = capfdbinary.readouterr()
    assert b"the network that comes with fer_ray" in err
    header, first, second = out.decode().splitlines()
    assert header.startswith('"path","status","error","label","confidence","p_angry"')
    expected = Predictor(SHIPPED_CHECKPOINT, "flip").predict(FACES[:1])
    assert first.startswith(f'"{names[0]}","ok",,"{expected.names[0]}",')
    assert float(first.split(",")[4]) == pytest.approx(expected.confidence[0], abs=TOLERANCE)
    assert second.startswith(f'"{names[1]}","empty","the file has no bytes",,')

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    score(None, names, max_error_rate=1)
    first, second = capfdbinary.readouterr()[0].decode().splitlines()
    assert first.split()[:3] == [names[0], expected.names[0], f"{expected.confidence[0]:.2f}"]
    assert second.split()[:3] == [names[1], "empty", "the"]

    monkeypatch.setattr(stage, "MOST_SHOWN", 1)
    with pytest.raises(UsageError, match=r"more than 1 inputs.* Name an --output for them"):
        score(None, names)


def test_inputs_that_do_not_look_like_faces_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shape in (("face", (178, 218)), ("wide", (100, 140)), ("large", (600, 600))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full(shape, 128, np.uint8))
    score(None, [tmp_path])
    assert "2 inputs of 3 taken as faces" in capsys.readouterr().err
    score(None, [tmp_path], faces="haar")
    assert "taken as faces" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "ray", "address", "expected"),
    [(3, None, "", False), (9, None, "", True), (9, False, "", False), (3, True, "", True), (3, None, "h:1", True)],
)
def test_where_a_job_runs(
    inputs: int, ray: bool | None, address: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(dashboard: bool = False) -> None:
        raise ConnectionError

    monkeypatch.setattr(stage, "RAY_FROM", 5)
    monkeypatch.setattr(connect, "connect", start)
    monkeypatch.setenv("RAY_ADDRESS", address)
    for number in range(inputs):
        (tmp_path / f"{number}.jpg").write_bytes(FACES[number])
    with pytest.raises(ConnectionError) if expected else contextlib.nullcontext():
        assert score(None, [tmp_path], ray=ray).summary["files"] == inputs


def test_what_resume_refuses(result: ScoreResult, checkpoint: Path, other: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{FAILED} of {FILES} inputs failed, .* allows 1.00%.*--resume"):
        score(checkpoint, [images], result.path, resume=True)
    with pytest.raises(UsageError, match="another tta: the output was scored with flip, the request is none"):
        score(checkpoint, [images], result.path, resume=True, tta="none")
    with pytest.raises(UsageError, match="another checkpoint"):
        score(other, [images], result.path, resume=True)
    with pytest.raises(UsageError, match=r"another format: .* with parquet.*\n.*other inputs"):
        score(checkpoint, [images / "00.jpg"], result.path, resume=True, format="csv")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="not the output of a scoring job"):
        score(checkpoint, [images], tmp_path, resume=True)


def test_wrong_calls(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wrong = {"tta": "flap", "format": "xml", "batch_size": 0, "gpus_per_actor": 2}
    with pytest.raises(UsageError, match=r"(?s)tta flap.*'flip'.*format xml.*batch.*gpus"):
        score(checkpoint, [images], **wrong)
    for needs_output in ({"resume": True}, {"format": "csv"}):
        with pytest.raises(UsageError, match=r"needs (an|the) --output"):
            score(checkpoint, [images], **needs_output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        score(checkpoint, [tmp_path / "empty"], out)
    with pytest.raises(UsageError, match=r"labels: the output is inside the input .*images\."):
        score(checkpoint, [images], images / "labels")
    with pytest.raises(UsageError, match=r": a checkpoint after an input. Name checkpoints first."):
        score(None, [images, checkpoint], out)
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint")
    with pytest.raises(DataError, match=r"not a checkpoint.*Did you mean .*run/checkpoint\?"):
        score(None, [tmp_path / "run", images], out)
    assert not out.exists() and not (images / "labels").exists()


def test_faults_of_actors_are_plain_errors(ray_cluster: None, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """An actor finds out that the weights are damaged; the call can then be mended and made again."""
    damaged = Path(shutil.copytree(checkpoint, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        score(damaged, [images], tmp_path / "out", ray=True)
    assert not (tmp_path / "out").exists()


SLOW_DETECTOR = """
import time
from fer_ray.images.faces import FoundFace

class Slow:
    name = "the whole picture, after a while"

    def __call__(self, picture):
        time.sleep(0.1)
        return [FoundFace(0, 0, picture.shape[1], picture.shape[0], 1.0)]
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_job_resumes_alike(kill: signal.Signals, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_DETECTOR)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}

    def start(output: str, *more: str) -> "subprocess.Popen[bytes]":
        options = ["--faces", "slow:Slow", "--batch-size", "4", "--max-error-rate", "1", *more]
        command = [sys.executable, "-m", "fer_ray.score", checkpoint, images, "--output", tmp_path / output]
        return subprocess.Popen(
            [*map(str, command), *options],
            env=environment,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )

    assert start("undisturbed").wait() == 0
    killed = start("killed")
    while not list((tmp_path / "killed").glob("part-*")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(kill)
    _, said = killed.communicate()
    assert killed.returncode == (130 if kill == signal.SIGINT else -kill)
    assert b"Traceback" not in said
    written = len(read_rows(tmp_path / "killed"))
    assert 0 < written < FILES
    assert start("killed", "--resume").wait() == 0
    assert json.loads((tmp_path / "killed" / "summary.json").read_text())["scored_in_this_run"] == FILES - written
    assert read_rows(tmp_path / "killed").equals(read_rows(tmp_path / "undisturbed"))
