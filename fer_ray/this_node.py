"""Processes that belong to this one, on its own node: what asks for no CPUs is placed anywhere else.

On another node, such a process could be lost while this one goes on.
"""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return the scheduling strategy of an actor for this process's node alone."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
