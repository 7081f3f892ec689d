"""What a node sees, asked in a process of its own: paths below /proc/self are others there than here."""

import os
import sys
from pathlib import Path

import pytest
import ray

from fer_ray.cluster.node_checks import _compare, external_paths
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def test_what_a_node_does_not_see_is_told(ray_cluster: None, tmp_path: Path) -> None:
    node = {ray.get_runtime_context().get_node_id(): "10.0.0.2"}
    (tmp_path / "file").write_text("same")
    _compare(dict.fromkeys([str(tmp_path), str(tmp_path / "file"), str(tmp_path / "absent*")], ""), node)
    with (tmp_path / "file").open() as file:
        os.dup2(file.fileno(), 987)
    try:
        paths = {str(tmp_path): "", "/proc/self/fd/987": "/data/run", "/proc/self/cmdline": "/proc/self/cmdline"}
        with pytest.raises(UsageError) as failure:
            _compare(paths, node)
    finally:
        os.close(987)
    absent, other = failure.value.problems
    assert absent.startswith("/data/run: missing on node 10.0.0.2. Put it on storage that all nodes have")
    assert other.startswith("/proc/self/cmdline: different on node 10.0.0.2.")


def test_a_node_that_does_not_answer_is_named(ray_cluster: None, capfd: pytest.CaptureFixture[str]) -> None:
    _compare({"/": "/"}, {"e" * 56: "10.0.0.3"})
    assert "Node 10.0.0.3 doesn't answer" in capfd.readouterr().err


def test_places_that_a_configuration_names() -> None:
    assert external_paths(Config()) == []
    named = ["loss.teachers=[runs/a, s3://b/c]", "model.pretrained=weights.pt", "model.name=resnet18"]
    assert external_paths(load_config(None, named)) == ["runs/a", "s3://b/c", "weights.pt"]
    assert external_paths(load_config(None, ["model.name=resnet18", "model.pretrained=imagenet"])) == []
