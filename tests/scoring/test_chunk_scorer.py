"""Inputs that vanish, hang or break a decoder, faces in photos, too little memory, and the threads that do it all."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile_files import JPEG
from matplotlib import cbook
from out_of_memory import ERRORS, room_for

from fer_ray.errors import UsageError
from fer_ray.images.decode import decode
from fer_ray.images.faces import HaarDetector, crop
from fer_ray.inference import network
from fer_ray.inference.predictor import Predictor
from fer_ray.score import score
from fer_ray.scoring import chunk_scorer
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.timed_threads import TimedBatches
from fer_ray.weights import SHIPPED_CHECKPOINT


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of six photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(JPEG)
    return folder


def scored(folder: Path, **options: object) -> tuple[list[str], list[str | None]]:
    """Score a folder in this process, and return the rows' statuses and errors."""
    output = folder.parent / "out"
    score(None, [folder], output, max_error_rate=1, **options)
    rows = [row for part in sorted(output.glob("part-*")) for row in pq.read_table(part).to_pylist()]
    assert [Path(row["path"]).name for row in rows] == [f"{number}.jpg" for number in range(6)]
    return [row["status"] for row in rows], [row["error"] for row in rows]


def test_what_vanishes_hangs_or_breaks_the_decoder_is_a_row(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(entry: Entry) -> bytes:
        path = Path(entry.name.decode())
        if path.stem in ("1", "2"):
            path.unlink()
        if path.stem == "2":
            path.mkdir()
        if path.stem == "3":
            time.sleep(2)
        return b"fault" if path.stem == "5" else read_entry(entry)

    def decode_or_fail(data: bytes, *arguments: int) -> object:
        if data == b"fault":
            raise MemoryError("no room")
        return decode(data, *arguments)

    monkeypatch.setattr(chunk_scorer, "read_entry", read)
    monkeypatch.setattr(chunk_scorer, "decode", decode_or_fail)
    statuses, errors = scored(photos, timeout_s=0.5)
    assert statuses == ["ok", "missing", "not_a_file", "timeout", "ok", "undecodable"]
    assert (errors[3], errors[5]) == ("not read and decoded within 0.5 s", "MemoryError: no room")


def test_halved_batches(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    forward_batches = network.forward_batches
    monkeypatch.setattr(network, "forward_batches", room_for(1, ERRORS["driver"], forward_batches))
    statuses, _ = scored(photos, batch_size=4, precision="float32")
    assert statuses == 6 * ["ok"]
    assert capsys.readouterr().err.count("Memory ran out: from now on 1 image a forward pass") == 1
    monkeypatch.setattr(network, "forward_batches", room_for(0, ERRORS["driver"], forward_batches))
    with pytest.raises(UsageError, match=r"out of memory: CUDA error: out of memory\. Memory doesn.t hold the network"):
        score(None, [photos], photos.parent / "none", precision="float32")
    assert not (photos.parent / "none").exists()


def test_faces_in_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    pixels = decode(photo.read_bytes()).pixels
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "a.txt").write_text("no image")
    cv2.imwrite(str(folder / "b.png"), np.concatenate([pixels] * 2, axis=1))
    cv2.imwrite(str(folder / "c.png"), np.full((200, 300), 128, np.uint8))
    cv2.imwrite(str(folder / "d.jpg"), cv2.resize(pixels, None, fx=4, fy=4))
    monkeypatch.chdir(tmp_path)
    result = score(None, [folder, photo, folder / "b.png"], output, faces="haar", max_error_rate=0.5)
    rows = pq.read_table(next(output.glob("part-*"))).to_pylist()
    assert [(Path(row["path"]).name, row["status"], row["face"]) for row in rows] == [
        ("a.txt", "not_an_image", None),
        ("b.png", "ok", 0),
        ("b.png", "ok", 1),
        ("c.png", "no_face", None),
        ("d.jpg", "ok", 0),
        ("grace_hopper.jpg", "ok", 0),
        ("b.png", "ok", 0),
        ("b.png", "ok", 1),
    ]
    assert rows[1] == rows[6] and rows[2] == rows[7]
    (face,) = HaarDetector()(pixels)
    large, box = (tuple(row[f"face_{side}"] for side in ("x", "y", "width", "height")) for row in rows[4:6])
    assert box == pytest.approx(face[:4])
    assert large == pytest.approx(face.scaled(4)[:4], rel=0.1)  # a large JPEG is shrunk while it is decoded
    expected = Predictor(SHIPPED_CHECKPOINT, "flip").predict([crop(pixels, face)])
    assert rows[5]["label"] == expected.names[0]
    assert rows[5]["confidence"] == pytest.approx(expected.confidence[0], abs=0.02)
    assert (result.summary["failed"], result.summary["rows_with_label"]) == (1, 6)
    lines = capsys.readouterr().out.splitlines()
    assert lines[5].endswith("face 0: {2:.0f} × {3:.0f} at {0:.0f}, {1:.0f}".format(*box))
    with pytest.raises(UsageError, match=r"another detector: .* scored with haarcascade.*the request is none"):
        score(None, [folder, photo, folder / "b.png"], output, resume=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_takes_too_long_is_given_up_and_the_rest_goes_on(threads: int) -> None:
    released = threading.Event()

    def work(number: int) -> str:
        if number in (1, 2, 7):
            released.wait(30)
        return "done"

    timed = TimedBatches(work, lambda number: f"{number} late", list, threads, 0.3)
    results = timed.map([range(4), range(4, 8), range(8, 9)])
    assert results == [["done", "1 late", "2 late", "done"], ["done", "done", "done", "7 late"], ["done"]]
    released.set()
    time.sleep(0.1)
    assert results[0][1] == "1 late"  # what comes of it later is left out
    assert timed.map([[3, 4]]) == [["done", "done"]]


def test_a_late_one_does_not_end_what_another_call_does() -> None:
    timed = TimedBatches(lambda seconds: time.sleep(seconds) or "done", lambda seconds: "late", list, 2, 0.2)
    with ThreadPoolExecutor(2) as pool:
        slow, quick = pool.submit(timed.map, [[0.5, 0.0]]), pool.submit(timed.map, [[0.0] * 5])
    assert (slow.result(), quick.result()) == ([["late", "done"]], [["done"] * 5])


def test_finishing_a_batch_has_all_the_time_it_needs_and_may_raise() -> None:
    def finish(batch: list[int]) -> int:
        time.sleep(0.3)
        return 1 // batch[0]

    timed = TimedBatches(lambda number: number, lambda number: -1, finish, 2, 0.1)
    with pytest.raises(ZeroDivisionError):
        timed.map([[1], [0], [1]])
    assert timed.map([[1, 2]]) == [1]
