"""Secrets in URLs reach neither what is written or printed, nor what Ray logs."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest

from fer_ray.cli import main
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.storage.object_store import as_url
from fer_ray.storage.provenance import read_provenance

SECRET = "hunter2/Xq+9sesame"
LEAKS = (SECRET.encode(), b"hunter2", b"sesame")
USER, QUERY = f"://me:{SECRET}@", f"X-Amz-Credential=me&X-Amz-Security-Token={SECRET}&X-Amz-Signature={SECRET}"


def leaks_in(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file() and any(leak in file.read_bytes() for leak in LEAKS):
            yield str(file.relative_to(folder))


_TRAIN = "train --dataset data --output out"
_TUNE = "tune --dataset data --space space.yaml --trials 1 --output out --storage"
CALLS = {
    "a path to score": f"score s3:/me:{SECRET}@bucket/photos --output out",
    "a signed page to score": f"score https://bucket.s3.amazonaws.com/face.jpg?{QUERY} --output out",
    "resumed scores": f"score photos --resume --output s3://b/k?access_key=me&secret_key={SECRET}",
    "a run": f"train --dataset data --output s3{USER}bucket/run",
    "pretrained weights": f"{_TRAIN} --set model.pretrained=https{USER}host/x.safetensors",
    "a configuration": f"{_TRAIN} --config https{USER}host/x.yaml",
    "a number": f"{_TRAIN} --workers s3{USER}bucket",
    "a checkpoint": f"evaluate s3{USER}bucket/run --dataset data --output out",
    "a database without a driver": f"{_TUNE} nonsense{USER}host/db",
    "a database without a server": f"{_TUNE} postgresql{USER}127.0.0.1:1/db?connect_timeout=1",
    "a database in memory": f"{_TUNE} sqlite:///:memory:?password={SECRET}",
    "a stage": f"s3{USER}bucket",
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_name_no_secret(
    name: str,
    tiny_dataset: PreparedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").symlink_to(tiny_dataset.path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "face.jpg").write_bytes(b"no image")
    (tmp_path / "space.yaml").write_text("model: {name: cnn3}\nsearch: {model.dropout: {uniform: [0.0, 0.5]}}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(CALLS[name].split())
    assert end.value.code in (2, 3)
    printed = capfd.readouterr()
    assert printed.err and not any(leak.decode() in printed.err + printed.out for leak in LEAKS)
    assert not list(leaks_in(tmp_path))


@pytest.mark.parametrize("url", [f"s3{USER}bucket/x", "gs://hunter2@bucket/x", f"s3://bucket/x?{QUERY}"])
def test_urls_with_secrets_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"\*\*\*.* no key, password or signature.*AWS_SECRET") as raised:
        as_url(url)
    assert not any(leak.decode() in str(raised.value) for leak in LEAKS)
    assert as_url("s3://bucket/me:x@y?z=1") == "s3://bucket/me:x@y?z=1"


TWO_STAGES = """
import sys
from fer_ray.cli import main
at = sys.argv.index("then")
for arguments in (sys.argv[1:at], sys.argv[at + 1:]):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, end.code
import ray
for job in ray._private.worker.global_worker.gcs_client.get_all_job_info().values():
    print("Ray's list of jobs:", job.entrypoint)
"""
DETECTOR = """
import os
class Broken:
    name = "broken"
    def __call__(self, picture):
        raise RuntimeError("no access with " + os.environ["AWS_SECRET_ACCESS_KEY"])
"""


@pytest.mark.slow
def test_whole_stages(tiny_dataset: PreparedDataset, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a new process with its own Ray, which gets the secrets too; checks all files that two stages and Ray write."""
    ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path, as a socket's may have 107 bytes
    request.addfinalizer(lambda: shutil.rmtree(ray_folder))
    photos, space, labels, run = (tmp_path / name for name in ("photos", "space.yaml", "labels", "run"))
    photos.mkdir()
    (photos / "face.png").write_bytes(cv2.imencode(".png", synthetic_faces(1, seed=0)[0][0])[1].tobytes())
    places = [f"https://host/a.jpg?{QUERY}", f"s3{USER}bucket/b.jpg", f"https{USER}host/c.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(places))
    (tmp_path / "detector.py").write_text(DETECTOR)
    space.write_text(
        "model: {name: cnn3}\noptimizer: {name: adam, learning_rate: 0.001}\ntraining: {epochs: 1}\n"
        "search: {model.dropout: {uniform: [0.0, 0.5]}}\n"
    )
    storage = f"sqlite:///file:{tmp_path / 'trials.db'}?uri=true&password={SECRET}"
    score = ["score", photos, tmp_path / "list.txt", "--faces", "detector:Broken", "--max-error-rate", 1, "--ray"]
    tune = ["tune", "--dataset", tiny_dataset.path, "--space", space, "--trials", 1, "--storage", storage]
    arguments = [*score, "--output", labels, "then", *tune, "--output", run, "--log-json"]
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "RAY_TMPDIR": str(ray_folder)}
    ran = subprocess.run(
        [sys.executable, "-c", TWO_STAGES, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment, "AWS_SECRET_ACCESS_KEY": SECRET},
    )
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "list.txt").unlink()  # the input itself
    assert not any(leak.decode() in ran.stdout + ran.stderr for leak in LEAKS)
    assert not list(leaks_in(tmp_path))
    assert "Ray's list of jobs: python" in ran.stdout and "password=***" in ran.stdout
    assert list(ray_folder.rglob("*.log")) and not list(leaks_in(ray_folder))
    rows = {row["path"]: row["error"] for row in pq.read_table(labels / "part-000000000-000000003.parquet").to_pylist()}
    assert rows[str(photos / "face.png")] == "RuntimeError: no access with ***"
    assert any(path.startswith("https://host/a.jpg?X-Amz-Credential=***&") for path in rows) and len(rows) == 4
    provenance = read_provenance(run)
    assert provenance is not None and f"sqlite:///file:{tmp_path / 'trials.db'}?uri=true&password=***" in (
        provenance.starts[0].command
    )
