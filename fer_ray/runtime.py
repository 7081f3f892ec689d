"""Connect to Ray, or start it on this machine, and check requests against what the cluster has."""

import logging
import os
from typing import Any

import ray

from fer_ray.errors import UsageError
from fer_ray.progress import say


def connect(dashboard: bool = False) -> None:
    """Connect to the cluster that ``RAY_ADDRESS`` names (set inside ``ray job submit``), else start Ray here.

    Does nothing where this process is connected already. What workers print stays in Ray's log folder; what a user
    needs of it, the stages say themselves.

    Args:
        dashboard: start Ray's dashboard too, on loopback; Ray Train asks it for the state of actors.
    """
    if ray.is_initialized():
        return
    remote = bool(os.environ.get("RAY_ADDRESS"))
    options: dict[str, Any] = {} if remote else {"include_dashboard": dashboard}
    # Ray says at each start that token authentication is on; the README says so once.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(logging_level=logging.WARNING, log_to_driver=False, **options)
    quiet_ray_data()
    if not remote:
        total = ray.cluster_resources()
        say(f"Ray started on this machine: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs.")


def quiet_ray_data() -> None:
    """Turn off Ray Data's own progress bars and notices; the stages show their own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that the bars are off


def require(count: int, each: dict[str, float], purpose: str) -> None:
    """Check that ``count`` workers that each need the given resources fit on the cluster's nodes.

    Args:
        count: workers at once.
        each: resource name to amount a worker, such as ``{"CPU": 1, "GPU": 0.25}``.
        purpose: what the workers are, for the message.

    Raises:
        UsageError: they don't fit; the message shows the arithmetic.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_fitting(node, each) for node in nodes)
    if room >= count:
        return
    need = ", ".join(f"{amount:g} {name}" for name, amount in each.items() if amount)
    has = "; ".join(_describe(node, each) for node in nodes)
    raise UsageError(
        f"{purpose}: {count} × ({need}) asked for, room for {room}. {len(nodes)} node(s), with {has}."
        " Ask for less, or add nodes to the cluster."
    )


def _fitting(node: dict[str, float], each: dict[str, float]) -> int:
    counts = [int(node.get(name, 0) / amount + 1e-6) for name, amount in each.items() if amount]
    return min(counts) if counts else 0


def _describe(node: dict[str, float], each: dict[str, float]) -> str:
    parts = [f"{node.get(name, 0):g} {name}" for name, amount in each.items() if amount]
    return f"{' and '.join(parts)} (room for {_fitting(node, each)})"
