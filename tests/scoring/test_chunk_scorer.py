"""Scoring a chunk in this process: broken and hostile files, repeats, slow inputs, and the size of batches."""

import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hostile_files import CONTENTS, DEEP, JPEG, MADE, PNG, deep

from fer_ray.inference.predictor import Predictor
from fer_ray.scoring import chunk_scorer, manifest, parts
from fer_ray.scoring.chunk_scorer import ChunkScorer, fastest_batch_size
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.inputs import check_inputs, list_entries
from fer_ray.scoring.job import ChunkResult, ScoringOptions
from fer_ray.storage.output import Output
from fer_ray.weights import SHIPPED_CHECKPOINT


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with each kind of file; ``x.jpg`` is a folder and ``loop`` a link to its own folder."""
    folder = tmp_path_factory.mktemp("hostile") / "photos"
    folder.mkdir()
    for name, (_, content) in CONTENTS.items():
        (folder / name).write_bytes(content)
    for raw, (_, make) in MADE.items():
        make(folder / os.fsdecode(raw))
    for name, (_, length) in DEEP.items():
        deep(folder / name, length)
    (folder / "x.jpg").mkdir()
    (folder / "x.jpg" / "inside.png").write_bytes(PNG)
    (folder / "loop").symlink_to(folder)
    return folder


def options(**changes: object) -> ScoringOptions:
    default = ScoringOptions([SHIPPED_CHECKPOINT], "flip", "none", "float32", 16, 60.0)
    return replace(default, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def threads_as_before() -> object:
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def score_all(
    inputs: list[Path], output: Path, asked: ScoringOptions, threads: int = 2
) -> tuple[pa.Table, ChunkResult]:
    output.mkdir()
    folder = Output.at(output)
    manifest.add_listing(folder, list_entries(check_inputs(inputs), lambda: None), may_repeat=True)
    (chunks,) = manifest.read_chunks(folder)
    scorer = ChunkScorer(folder, asked, threads)
    scored = [scorer.score(number, chunk) for number, chunk in enumerate(chunks)]
    rows = [pq.read_table(output / parts.piece_name(number)) for number in range(len(chunks))]
    by_status = sum((one.by_status for one in scored), Counter[str]())
    return pa.concat_tables(rows), ChunkResult(by_status, scored[0].spent)


def test_each_hostile_file_has_its_status(hostile: Path, tmp_path: Path) -> None:
    rows, scored = score_all([hostile], tmp_path / "out", options())
    prefix = len(str(hostile)) + 1
    found = {row["path"][prefix:]: row["status"] for row in rows.to_pylist()}
    expected = {name: status for name, (status, _) in CONTENTS.items()}
    expected |= {name.decode("utf-8", "backslashreplace"): status for name, (status, _) in MADE.items()}
    expected["x.jpg/inside.png"] = "ok"
    lengths = {name.partition("/")[0]: len(name) + prefix for name in found if name.partition("/")[0] in DEEP}
    found = {name.partition("/")[0] if name.startswith(tuple(DEEP)) else name: status for name, status in found.items()}
    expected |= {name: status for name, (status, _) in DEEP.items()}
    assert found == expected
    assert lengths["deep"] == 4050 and lengths["too-deep"] > 4095
    assert len(rows) == scored.files == len(expected)
    assert scored.failed == sum(status != "ok" for status in expected.values())
    assert scored.by_status == Counter(expected.values())
    assert not Path("/tmp/owned").exists()
    errors = dict(zip((path[prefix:] for path in rows["path"].to_pylist()), rows["error"].to_pylist(), strict=True))
    assert "name it as an INPUT of its own" in errors["archive.jpg"] and "convert it to JPEG" in errors["photo.heic"]


def test_what_vanishes_after_the_listing_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(JPEG)
    listed = list_entries(check_inputs([folder]), lambda: None)
    output = Output.at(tmp_path)
    manifest.add_listing(output, listed, may_repeat=False)
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").unlink()
    (folder / "2.jpg").mkdir()
    ((chunk,),) = manifest.read_chunks(output)
    ChunkScorer(output, options(), 1).score(0, chunk)
    rows = pq.read_table(tmp_path / parts.piece_name(0))
    assert rows["status"].to_pylist() == ["ok", "missing", "not_a_file"]


def test_a_file_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive that hangs."""
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(JPEG)

    def read(entry: manifest.Entry) -> bytes:
        if entry.name.endswith((b"1.jpg", b"4.jpg")):
            time.sleep(2)
        return read_entry(entry)

    monkeypatch.setattr(chunk_scorer, "read_entry", read)
    rows, scored = score_all([tmp_path], tmp_path / "out", options(timeout_s=0.5))
    assert rows["status"].to_pylist() == ["ok", "timeout", "ok", "ok", "timeout", "ok"]
    assert rows["error"][1].as_py() == "not read and decoded within 0.5 s"
    assert scored.failed == 2 and scored.spent.reading >= 1


def test_a_fault_of_a_decoder_is_that_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(JPEG)
    decode, calls = chunk_scorer.decode, []

    def fail_once(data: bytes, *arguments: int, **options: int) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("no room")
        return decode(data, *arguments, **options)

    monkeypatch.setattr(chunk_scorer, "decode", fail_once)
    rows, _ = score_all([tmp_path], tmp_path / "out", options(), threads=1)
    assert sorted(rows["status"].to_pylist()) == ["ok", "ok", "undecodable"]
    assert "MemoryError: no room" in rows["error"].to_pylist()


def test_a_photo_with_no_face_among_others_keeps_rows_and_numbers_together(tmp_path: Path) -> None:
    """Rows of faces and predictions are matched by counting, which must hold for any mixture."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, faces in enumerate([0, 2, 1, 0, 3]):
        grey = np.full((100, 100 + 100 * faces), 40 * number, np.uint8)
        (photos / f"{number}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    (tmp_path / "side_by_side.py").write_text(
        "from fer_ray.images.faces import FoundFace\n"
        "class Detector:\n"
        "    name = 'one for each 100 columns after the first'\n"
        "    def __call__(self, picture):\n"
        "        return [FoundFace(x, 0, 100, 100, x) for x in range(100, picture.shape[1], 100)]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        rows, scored = score_all([photos, photos / "2.png"], tmp_path / "out", options(faces="side_by_side:Detector"))
    seen = [(Path(row["path"]).name, row["status"], row["face"], row["face_x"]) for row in rows.to_pylist()]
    assert seen == [
        ("0.png", "no_face", None, None),
        ("1.png", "ok", 0, 100),
        ("1.png", "ok", 1, 200),
        ("2.png", "ok", 0, 100),
        ("2.png", "ok", 0, 100),  # named twice, scored once
        ("3.png", "no_face", None, None),
        ("4.png", "ok", 0, 100),
        ("4.png", "ok", 1, 200),
        ("4.png", "ok", 2, 300),
    ]
    assert (scored.files, scored.failed) == (6, 0)
    predictor = Predictor(SHIPPED_CHECKPOINT, "flip", "float32")
    expected = predictor.predict([np.full((9, 9), 40 * number, np.uint8) for number in range(5)]).probabilities
    for row in rows.to_pylist():
        if row["status"] == "ok":
            assert row["p_happy"] == pytest.approx(expected[int(Path(row["path"]).stem), 3], abs=1e-5)


@pytest.mark.parametrize("slow", [False, True])
def test_slow_storage_is_read_by_many_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slow: bool) -> None:
    for number in range(160):
        (tmp_path / f"{number:03d}.png").write_bytes(PNG)
    reading, most, lock = 0, 0, threading.Lock()

    def read(entry: Entry) -> bytes:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.03 if slow else 0)
        with lock:
            reading -= 1
        return read_entry(entry)

    monkeypatch.setattr(chunk_scorer, "read_entry", read)
    rows, _ = score_all([tmp_path], tmp_path / "out", options(), threads=1)
    assert rows["path"].to_pylist() == sorted(rows["path"].to_pylist())
    # 16 threads read; that all of them are in it at one moment is the scheduler's luck.
    assert 8 <= most <= 16 if slow else most == 1


def test_the_size_of_batches_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timed:
        """Takes a time for a batch that a table says, by a clock of its own."""

        size, device, batch_size = 4, torch.device("cpu"), 0

        def __init__(self, seconds: dict[int, float]):
            self.seconds, self.tried, self.now = seconds, list[int](), 0.0
            monkeypatch.setattr(chunk_scorer.time, "perf_counter", lambda: self.now)

        def predict(self, images: np.ndarray) -> None:
            self.tried.append(len(images))
            if self.seconds[len(images)] < 0:  # as where memory ran out
                self.batch_size = min(self.batch_size, len(images) // 2)
                return
            assert len(images) == self.batch_size
            self.now += self.seconds[len(images)]

    for seconds, best, tried in (
        ({16: 0.016, 32: 0.016, 64: 0.016, 128: 0.016}, 128, [16, 32, 64, 128]),
        ({16: 0.016, 32: 0.0316, 64: 0.0632, 128: 0.1264}, 128, [16, 32, 64, 128]),  # as good
        ({16: 0.016, 32: 0.016, 64: 0.064, 128: 0.1}, 32, [16, 32, 64, 128]),
        ({16: 0.016, 32: 0.016, 64: -1.0, 128: 0.01}, 32, [16, 32, 64]),
        ({16: -1.0, 32: 0.01, 64: 0.01, 128: 0.01}, 8, [16]),
        ({16: 0.2, 32: 0.42, 64: 0.01, 128: 0.01}, 16, [16, 32]),  # slow networks are not tried for long
    ):
        timed = Timed(seconds)
        assert fastest_batch_size(timed) == best  # type: ignore[arg-type]
        assert sorted(set(timed.tried)) == tried
