"""Whether the nodes of a cluster see the places that a job names."""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

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
    """Check that every node that can run work sees the same inputs, and what is written to the output.

    URLs are left alone, and so is a cluster of one node.

    Args:
        inputs: files, compared by their size and first bytes, and folders, which must be there.
        output: a folder, or where one will be made.

    Raises:
        UsageError: a node sees another thing or none; the message names all such nodes and places.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and _works(node)}
    others = {id: address for id, address in nodes.items() if id != here}
    places = [absolute(place) for place in inputs if not as_url(place)]
    probe = None
    if output is not None and not as_url(output):
        there = next(folder for folder in (Path(output), *Path(output).parents) if folder.is_dir())
        probe = there / f".seen-{uuid.uuid4().hex}"
    if not others or not (places or probe):
        return
    try:
        if probe:
            probe.write_text(here)
        _compare([*places, *([str(probe)] if probe else [])], others, {str(probe): str(output)})
    finally:
        if probe:
            probe.unlink(missing_ok=True)


def external_paths(config: Config) -> list[str]:
    """Return the paths and URLs that a training configuration names."""
    weights = config.model.pretrained
    return [*config.loss.teachers, *([weights] if weights and weights != "imagenet" else [])]


def _compare(places: Sequence[str], nodes: dict[str, str], shown: dict[str, str]) -> None:
    expected = [_look(place) for place in places]
    tasks = {
        id: ray.remote(_look_at_all)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False))
        .remote(places)
        for id in nodes
    }
    ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=_PATIENCE_S)
    problems = []
    for id, task in tasks.items():
        try:
            seen = ray.get(task, timeout=0)
        except RayError as error:  # a node that was lost meanwhile, or has no time, takes no part; say so
            say(f"Node {nodes[id]} doesn't answer ({type(error).__name__}), so what it sees wasn't checked.")
            continue
        for place, here, there in zip(places, expected, seen, strict=True):
            if here != there:
                what = "something else there" if there else "not there"
                problems.append(f"{shown.get(place, place)}: {what} on node {nodes[id]}. {SHARE_IT}")
    if problems:
        raise UsageError(problems)


def _works(node: dict[str, dict[str, float]]) -> bool:
    return any(node["Resources"].get(kind, 0) for kind in ("CPU", "GPU"))


def _look_at_all(places: Sequence[str]) -> list[str]:
    return [_look(place) for place in places]


def _look(place: str) -> str:
    """Return what is at a path, empty where nothing is."""
    path = Path(place)
    try:
        if path.is_dir():
            return "folder"
        with path.open("rb") as file:
            return hashlib.sha256(b"%d " % path.stat().st_size + file.read(_READ_BYTES)).hexdigest()
    except OSError:
        return ""
