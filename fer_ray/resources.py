"""What the nodes of a Ray cluster have, and how many processes fit on them."""

from collections.abc import Iterable, Mapping, Sequence

from fer_ray.memory import describe_bytes

Resources = Mapping[str, float]
"""Ray's name of a resource to its amount; ``memory`` is in bytes."""


def fitting(node: Resources, each: Resources) -> int:
    """Return how many processes fit on a node that each need ``each``; amounts of 0 need nothing."""
    counts = [int(node.get(name, 0) / amount + 1e-6) for name, amount in each.items() if amount]
    return min(counts) if counts else 0


def room(nodes: Iterable[Resources], each: Resources) -> int:
    """Return how many processes fit on several nodes."""
    return sum(fitting(node, each) for node in nodes)


def most_cpus(nodes: Sequence[Resources], each: Resources, count: int, left: float = 0) -> int:
    """Return how many whole CPUs each of ``count`` processes can have where all of them fit; 1 where they don't.

    Args:
        nodes: to be shared out.
        each: what else a process needs.
        count: of processes.
        left: part of its last CPU that each leaves to others.
    """
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    enough = (cpus for cpus in range(most, 1, -1) if room(nodes, {**each, "CPU": cpus - left}) >= count)
    return next(enough, 1)


def describe_resources(amounts: Resources) -> list[str]:
    """Return amounts as a reader says them: ``2 CPUs``, ``0.25 GPU``, ``1.2 GiB memory``."""
    return [
        f"{describe_bytes(amount)} memory" if name == "memory" else f"{amount:g} {name}{'s' * (amount > 1)}"
        for name, amount in amounts.items()
    ]
