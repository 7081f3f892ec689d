"""Scoring from and to an object store, one that is slow and overloaded too."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import BUCKET, Store, running_store

import fer_ray
from fer_ray.errors import DataError
from fer_ray.images.image_files import FileError
from fer_ray.inference.predictor import Predictor
from fer_ray.scoring.containers import read_entry
from fer_ray.scoring.inputs import check_inputs, list_entries
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.weights import SHIPPED_CHECKPOINT

pytestmark = pytest.mark.slow
FACES = [cv2.imencode(".jpg", face)[1].tobytes() for face in synthetic_faces(40, seed=0)[0]]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as running:
        for number, face in enumerate(FACES):
            running.put(f"photos/{number % 3}/{number:03}.jpg", face)
        running.put("photos/0/broken.jpg", b"no image")
        running.put("photos/.hidden.jpg", FACES[0])
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w") as archive:
            for number, face in enumerate(FACES[:5]):
                member = tarfile.TarInfo(f"{number}.jpg")
                member.size = len(face)
                archive.addfile(member, io.BytesIO(face))
        running.put("shards/a.tar", shard.getvalue())
        running.put("list.txt", b"photos/0/000.jpg\ns3://faces/photos/1/001.jpg\nphotos/gone.jpg\n")
        yield running


@pytest.fixture(autouse=True)
def no_faults(store: Store) -> None:
    store.faults.busy_every = store.faults.slow_every = 0


def names(*inputs: str) -> list[str]:
    listed = list_entries(check_inputs(inputs), lambda: None)
    return [entry.name.decode().removeprefix(f"s3://{BUCKET}/") for entry in listed]


def test_listing(store: Store) -> None:
    expected = [f"photos/{number % 3}/{number:03}.jpg" for number in range(len(FACES))]
    below = names(f"s3://{BUCKET}/photos")
    assert below == sorted([*expected, "photos/0/broken.jpg"])
    assert names(f"s3://{BUCKET}/photos/") == below
    assert names(f"s3://{BUCKET}/photos/*/00?.jpg") == sorted(expected[:10])
    assert names(f"s3://{BUCKET}/**/*9.jpg") == sorted(name for name in expected if name.endswith("9.jpg"))
    assert names(f"s3://{BUCKET}/photos/[12]") == sorted(name for name in expected if name[7] in "12")
    assert names(f"s3://{BUCKET}/photos/1/001.jpg") == ["photos/1/001.jpg"]
    assert names(f"s3://{BUCKET}/list.txt") == ["photos/0/000.jpg", "photos/1/001.jpg", "photos/gone.jpg"]
    assert names(f"s3://{BUCKET}/shards/*.tar") == [f"shards/a.tar!/{number}.jpg" for number in range(5)]
    with pytest.raises(DataError, match=f"s3://{BUCKET}/nowhere: no such file or folder. Name an existing one.$"):
        check_inputs([f"s3://{BUCKET}/nowhere"])


def test_reading(store: Store) -> None:
    store.faults.busy_every = 3
    listed = list(list_entries(check_inputs([f"s3://{BUCKET}/shards/a.tar", f"s3://{BUCKET}/list.txt"]), lambda: None))
    assert [read_entry(entry) for entry in listed[:-1]] == [*FACES[:5], FACES[0], FACES[1]]
    with pytest.raises(FileError, match="missing: no such object"):
        read_entry(listed[-1])


@pytest.mark.parametrize("ray", [False, True])
def test_a_whole_job_on_a_bad_day_loses_nothing(ray: bool, store: Store) -> None:
    """In processes of its own, as the environment that names the server has to be there when Ray starts."""
    store.faults.busy_every, store.faults.slow_every = 25, 31
    inputs = [f"s3://{BUCKET}/{name}" for name in ("photos", "shards/a.tar", "list.txt")]
    command = [sys.executable, "-m", "fer_ray.score", *inputs, "--output", f"s3://{BUCKET}/labels-{ray}"]
    command += ["--max-error-rate", "0.5", "--ray" if ray else "--no-ray"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ", 2 failed: 1 " in ran.stdout
    keys = store.keys(f"labels-{ray}")
    parts = [store.get(f"labels-{ray}/{key}") for key in keys if key.startswith("part-")]
    rows = [row for part in parts for row in pq.read_table(pa.BufferReader(part)).to_pylist()]
    assert {"_job.json", "_manifest-0000.parquet", "provenance.json", "summary.html", "summary.json"} < set(keys)
    assert len(rows) == len(FACES) + 1 + 5 + 3
    status = {row["path"]: row["status"] for row in rows}
    assert status.pop(f"s3://{BUCKET}/photos/0/broken.jpg") == "not_an_image"
    assert status.pop(f"s3://{BUCKET}/photos/gone.jpg") == "missing"
    assert set(status.values()) == {"ok"} and len(status) == len(FACES) + 5
    expected = Predictor(SHIPPED_CHECKPOINT, "flip").predict(FACES[:1])
    (first,) = (row for row in rows if row["path"].endswith("a.tar!/0.jpg"))
    assert first["label"] == expected.names[0]
    assert store.faults.answered["busy"] > 3 and store.faults.answered["slow"] > 3

    store.put(f"photos/2/new-{ray}.jpg", FACES[0])
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "1 new input since the last run" in again.stderr
    assert json.loads(store.get(f"labels-{ray}/summary.json"))["files"] == len(rows) + 1
    store.filesystem.delete_file(f"{BUCKET}/photos/2/new-{ray}.jpg")


def test_checkpoints_by_url(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path))
    for file in filter(Path.is_file, Path(SHIPPED_CHECKPOINT).iterdir()):  # and no __pycache__
        store.put(f"checkpoint/{file.name}", file.read_bytes())
    faces = list(synthetic_faces(3, seed=1)[0])
    there, here = (fer_ray.load(place).predict(faces) for place in (f"s3://{BUCKET}/checkpoint", SHIPPED_CHECKPOINT))
    assert there.probabilities.tolist() == here.probabilities.tolist()
    with pytest.raises(DataError, match=f"s3://{BUCKET}/nowhere: not a checkpoint"):
        fer_ray.load(f"s3://{BUCKET}/nowhere")
