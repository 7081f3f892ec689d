"""Check that the nodes of a cluster see the paths that a job names."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fer_ray.config.schema import Config
from fer_ray.console.progress import say
from fer_ray.errors import UsageError
from fer_ray.storage.object_store import absolute, as_url
from fer_ray.storage.output import SHARE_IT

_PATIENCE_S = 60.0
_READ_BYTES = 1 << 16


def require_seen_by_nodes(inputs: Iterable[Path | str], output: Path | str | None = None) -> None:
    """Check that all nodes that can run work see the same inputs, and the files written to the output.

    URLs are not checked, nor is a cluster of one node. Files are compared by size and first bytes. Folders of inputs
    must exist; that of the output need not. ``UsageError`` names every path that is missing or different on a node.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here and {"CPU", "GPU"} & set(node["Resources"])
    }
    if not others:
        return
    paths = {absolute(path): str(path) for path in inputs if not as_url(path)}
    with ExitStack() as at_end:
        if output is not None and not as_url(output):
            existing = next(folder for folder in (Path(output), *Path(output).parents) if folder.is_dir())
            probe = at_end.enter_context(NamedTemporaryFile(prefix=".seen-", dir=existing))
            os.fchmod(probe.fileno(), 0o644)  # another user may run Ray there
            paths[probe.name] = str(output)
        if paths:
            _compare(paths, others)


def external_paths(config: Config) -> list[str]:
    """Return the paths and URLs that a training configuration names."""
    weights = config.model.pretrained
    return [*config.loss.teachers, *([weights] if weights and weights != "imagenet" else [])]


def _compare(paths: Mapping[str, str], nodes: Mapping[str, str]) -> None:
    """Compare absolute paths, each with its name in messages, here and on nodes, by id with their addresses."""
    expected = _fingerprints(paths)
    tasks = {
        id: ray.remote(_fingerprints)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False))
        .remote(list(paths))
        for id in nodes
    }
    ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=_PATIENCE_S)
    problems = []
    for id, task in tasks.items():
        try:
            found = ray.get(task, timeout=0)
        except RayError as error:  # the node was lost, or is busy: then the check is incomplete, and the user must know
            say(f"Node {nodes[id]} doesn't answer ({type(error).__name__}), so its paths weren't checked.")
            continue
        for path, here, there in zip(paths, expected, found, strict=True):
            if here != there:
                problem = "different" if there else "missing"
                problems.append(f"{paths[path]}: {problem} on node {nodes[id]}. {SHARE_IT}")
    if problems:
        raise UsageError(problems)


def _fingerprints(paths: Iterable[str]) -> list[str]:
    """Return what tells the contents of each path from others; empty if nothing is there."""

    def fingerprint(path: Path) -> str:
        try:
            if path.is_dir():
                return "folder"
            with path.open("rb") as file:
                return hashlib.sha256(b"%d " % path.stat().st_size + file.read(_READ_BYTES)).hexdigest()
        except OSError:
            return ""

    return [fingerprint(Path(path)) for path in paths]
