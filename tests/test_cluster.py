"""Every stage as a job on a cluster of two nodes, with data and outputs in an object store."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from object_store import BUCKET, Store, running_store
from ray_nodes import Nodes, running_nodes

from fer_ray.evaluate import evaluate
from fer_ray.prepare import prepare
from fer_ray.score import score
from fer_ray.storage.inputs import local_copy
from fer_ray.tune import tune

SPACE = """\
model: {name: lenet}
training: {epochs: 2}
search:
  optimizer.learning_rate: {log_uniform: [0.001, 0.1]}
"""
TRAINING = ["--set", "model.name=lenet", "--set", "training.epochs=2"]


@pytest.fixture
def store() -> Iterator[Store]:
    with running_store() as running:
        yield running


@pytest.fixture
def nodes(store: Store) -> Iterator[Nodes]:
    with running_nodes(head_cpus=1) as running:
        running.add(cpus=1)
        yield running


class Jobs:
    """Runs stages as jobs and keeps what they print."""

    def __init__(self, nodes: Nodes):
        self._nodes, self.printed = nodes, ""

    def run(self, stage: str, *arguments: object) -> None:
        """Submit a stage, which has to end well and print no control characters."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        job = self._nodes.submit(f"fer_ray.{stage}", *arguments, **pipes)
        printed, _ = job.communicate(timeout=300)
        self.printed += printed
        assert job.returncode == 0, printed
        own = [line for line in printed.splitlines() if "cli.py:" not in line]  # `ray job submit` prints colours
        assert not {"\x1b", "\r", "\b"} & set("".join(own)), printed


def epochs(lines: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.slow
def test_every_stage_does_the_same_as_a_job_and_here(
    ray_cluster: None, store: Store, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    jobs, url = Jobs(nodes), f"s3://{BUCKET}/runs"
    store.put("runs/lenet.yaml", SPACE.encode())

    jobs.run("prepare", "synthetic:600", f"{url}/dataset")
    here = prepare("synthetic:600", tmp_path / "dataset")
    assert json.loads(store.get("runs/dataset/dataset.json"))["fingerprint"] == here.info.fingerprint

    jobs.run("train", "--workers", 2, "--dataset", f"{url}/dataset", *TRAINING, "--output", f"{url}/run")
    command = [sys.executable, "-m", "fer_ray.train", "--workers", "2", "--dataset", str(here.path), *TRAINING]
    subprocess.run(
        [*command, "--output", str(tmp_path / "run")],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | {"RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'},
        check=True,
        timeout=300,
    )
    of_job = epochs(store.get("runs/run/metrics.jsonl").decode())
    for there, own in zip(of_job, epochs((tmp_path / "run" / "metrics.jsonl").read_text()), strict=True):
        for name in ("epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate"):
            assert there[name] == pytest.approx(own[name], rel=1e-5), name

    search = ["--space", f"{url}/lenet.yaml", "--trials", 3, "--scheduler", "none"]
    jobs.run("tune", "--dataset", f"{url}/dataset", *search, "--output", f"{url}/search")
    (tmp_path / "lenet.yaml").write_text(SPACE)
    tune(here.path, [tmp_path / "lenet.yaml"], tmp_path / "search", trials=3, scheduler="none")
    tables = [
        pq.read_table(local_copy(f"{url}/search/trials.parquet")).to_pylist(),
        pq.read_table(tmp_path / "search" / "trials.parquet").to_pylist(),
    ]
    there, own = ({row["number"]: row for row in rows} for rows in tables)
    assert there.keys() == own.keys() == {0, 1, 2}
    assert {row["state"] for row in there.values()} == {"COMPLETE"}
    assert there[0]["value"] == pytest.approx(own[0]["value"])  # the defaults, whatever the sampler draws
    assert (local_copy(f"{url}/search/best") / "model.safetensors").is_file()
    assert not [key for key in store.keys("runs/search") if key.startswith(".")]

    networks = [f"{url}/run/checkpoint", f"{url}/search/best"]
    jobs.run("evaluate", *networks, "--dataset", f"{url}/dataset", "--output", f"{url}/evaluation")
    copies = [local_copy(network) for network in networks]
    scores = evaluate(copies, here.path, tmp_path / "evaluation").evaluation
    evaluated = json.loads(store.get("runs/evaluation/metrics.json"))
    assert [member["checkpoint"] for member in evaluated["members"]] == networks
    assert evaluated["tta"]["flip"]["official"]["accuracy"] == scores.tta["flip"].official.accuracy
    assert evaluated["tta"]["flip"]["official"]["nll"] == pytest.approx(scores.tta["flip"].official.nll, rel=1e-4)

    for number, sample in enumerate(range(5)):
        store.put(f"faces/{number}.png", store.get("runs/dataset/samples.png") if sample else b"broken")
    jobs.run("score", networks[0], f"s3://{BUCKET}/faces", "--max-error-rate", 1, "--output", f"{url}/labels")
    score(copies[0], [local_copy(f"s3://{BUCKET}/faces")], tmp_path / "labels", max_error_rate=1)
    rows = [
        pq.read_table(local_copy(f"{url}/labels/part-00000.parquet")).to_pylist(),
        pq.read_table(tmp_path / "labels" / "part-00000.parquet").to_pylist(),
    ]
    for there, own in zip(*rows, strict=True):
        assert (Path(there["path"]).name, there["status"]) == (Path(own["path"]).name, own["status"])
        assert there["p_happy"] == pytest.approx(own["p_happy"], abs=1e-4)

    folders = [f"{url}/{name}" for name in ("dataset", "run", "search", "evaluation", "labels")]
    jobs.run("report", *folders, "--output", f"{url}/page")
    page = store.get("runs/page/report.html").decode()
    assert all(folder in page for folder in folders)
    _check_no_secret(store, nodes, jobs.printed)


def _check_no_secret(store: Store, nodes: Nodes, printed: str) -> None:
    """Check that no output and no log of Ray's holds the key of the object store."""
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in printed
    written = store.keys("runs")
    assert len(written) > 40
    assert [key for key in written if secret.encode() in store.get(f"runs/{key}")] == []
    logs = [path for path in nodes.folder.rglob("*") if path.is_file() and path.suffix in (".log", ".out", ".err")]
    assert len(logs) > 10
    assert [path for path in logs if secret.encode() in path.read_bytes()] == []
