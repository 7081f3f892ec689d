"""Scoring chunks in this process: files that vanish, slow inputs, faults, and the size of chunks."""

import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hostile_files import JPEG, PNG

from fer_ray.inference.predictor import Predictor
from fer_ray.scoring import chunk_scorer, manifest
from fer_ray.scoring.chunk_scorer import ChunkScorer
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.inputs import check_inputs, list_entries
from fer_ray.scoring.job import ScoringJob
from fer_ray.scoring.parts import read_part, written_chunks
from fer_ray.scoring.run import LeftInputs
from fer_ray.scoring.totals import Totals
from fer_ray.storage.output import Output
from fer_ray.weights import SHIPPED_CHECKPOINT


def job(**changes: object) -> ScoringJob:
    default: dict[str, object] = {
        "inputs": [],
        "checkpoints": [str(SHIPPED_CHECKPOINT)],
        "checkpoint": "",
        "tta": "flip",
        "faces": "none",
        "detector": "",
        "format": "parquet",
        "timeout_s": 60.0,
        "batch_size": 16,
        "precision": "float32",
    }
    return ScoringJob.model_validate(default | changes)


def score_all(inputs: list[Path], output: Path, request: ScoringJob, threads: int = 2) -> tuple[pa.Table, Totals]:
    output.mkdir()
    folder = Output.at(output)
    manifest.add_listing(folder, list_entries(check_inputs(inputs), lambda: None))
    return score_listed(folder, request, threads)


def score_listed(folder: Output, request: ScoringJob, threads: int = 2) -> tuple[pa.Table, Totals]:
    scorer, totals = ChunkScorer(folder, request, threads), Totals()
    left = LeftInputs(manifest.Manifest(folder).listings)
    try:
        while done := scorer.score_next(left.take):
            totals.add(done.totals)
    finally:
        scorer.stop()
    return pa.concat_tables(
        [read_part(folder, chunk, "parquet") for chunk in written_chunks(folder, "parquet")]
    ), totals


def test_what_vanishes_after_the_listing_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(JPEG)
    listed = list_entries(check_inputs([folder]), lambda: None)
    output = Output.at(tmp_path)
    manifest.add_listing(output, listed)
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").unlink()
    (folder / "2.jpg").mkdir()
    rows, _ = score_listed(output, job())
    assert rows["status"].to_pylist() == ["ok", "missing", "not_a_file"]


def test_a_file_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive that hangs."""
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(JPEG)

    def read(entry: Entry) -> bytes:
        if entry.name.endswith((b"1.jpg", b"4.jpg")):
            time.sleep(2)
        return read_entry(entry)

    monkeypatch.setattr(chunk_scorer, "read_entry", read)
    rows, scored = score_all([tmp_path], tmp_path / "out", job(timeout_s=0.5))
    assert rows["status"].to_pylist() == ["ok", "timeout", "ok", "ok", "timeout", "ok"]
    assert rows["error"][1].as_py() == "not read and decoded within 0.5 s"
    assert scored.failed == 2


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
    rows, _ = score_all([tmp_path], tmp_path / "out", job(), threads=1)
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
        rows, scored = score_all([photos, photos / "2.png"], tmp_path / "out", job(faces="side_by_side:Detector"))
    seen = [(Path(row["path"]).name, row["status"], row["face"], row["face_x"]) for row in rows.to_pylist()]
    assert seen == [
        ("0.png", "no_face", None, None),
        ("1.png", "ok", 0, 100),
        ("1.png", "ok", 1, 200),
        ("2.png", "ok", 0, 100),
        ("3.png", "no_face", None, None),
        ("4.png", "ok", 0, 100),
        ("4.png", "ok", 1, 200),
        ("4.png", "ok", 2, 300),
        ("2.png", "ok", 0, 100),
    ]
    assert (scored.files, scored.failed) == (6, 0)
    predictor = Predictor(SHIPPED_CHECKPOINT, "flip", "float32")
    expected = predictor.predict([np.full((9, 9), 40 * number, np.uint8) for number in range(5)]).probabilities
    for row in rows.to_pylist():
        if row["status"] == "ok":
            assert row["p_happy"] == pytest.approx(expected[int(Path(row["path"]).stem), 3], abs=1e-5)


def test_chunks_are_seconds_of_work_and_whole_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number:03d}.png").write_bytes(PNG)
    monkeypatch.setattr(chunk_scorer, "CHUNK_SECONDS", 1e9)
    score_all([tmp_path], tmp_path / "out", job(batch_size=8))
    assert written_chunks(Output.at(tmp_path / "out"), "parquet") == [(0, 8), (8, 42)]
    monkeypatch.setattr(chunk_scorer, "CHUNK_SECONDS", 1e-9)
    score_all([tmp_path], tmp_path / "small", job(batch_size=20))
    assert written_chunks(Output.at(tmp_path / "small"), "parquet")[0] == (0, 20)
