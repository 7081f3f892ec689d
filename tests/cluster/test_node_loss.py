"""What happens to work whose node is lost; ``benchmarks/node_kills.py`` loses nodes at random moments."""

import time
from pathlib import Path

import pytest
from process_tree import descendants
from ray_nodes import running_nodes

from fer_ray.dataset.store import PreparedDataset
from fer_ray.training.run_folder import RunFolder

PATIENCE_S = 240


@pytest.mark.heavy  # it starts a cluster of three nodes, and Ray Train twice
def test_training_continues_when_a_node_is_lost(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    command = ["--dataset", tiny_dataset.path, "--workers", 2, "--output", run]
    command += ["--set", "model.name=lenet", "--set", "training.epochs=60"]
    with running_nodes() as nodes, log.open("wb") as output:
        lost = nodes.add()
        nodes.add()
        process = nodes.driver("fer_ray.train", *command, stdout=output, stderr=output)
        while len(RunFolder(run).history()) < 2:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        on_head = descendants(nodes.head.process.pid).values()
        assert any("SharedProgress" in line for line in on_head)
        nodes.lose(lost)
        nodes.add()
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert [line["epoch"] for line in RunFolder(run).history()] == [*range(1, 61)]
    assert "Restarting after epoch" in log.read_text() and "Traceback" not in log.read_text()
