"""Resources of the nodes of a Ray cluster, and how many processes fit on them."""

from collections.abc import Iterable, Mapping, Sequence

from fer_ray.console.text import describe_bytes

Resources = Mapping[str, float]  # resource by Ray's name to amount; ``memory`` is in bytes
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # environment variable that Ray sets in the driver of a submitted job


def fitting(node: Resources, each: Resources) -> int:
    """Return how many processes with the resources ``each`` fit on a node.

    A part of a GPU comes from one GPU: the free parts of two GPUs are not added up.
    """
    counts = [
        int(node.get(name, 0)) * int(1 / amount + 1e-6)
        if name == "GPU" and amount < 1
        else int(node.get(name, 0) / amount + 1e-6)
        for name, amount in each.items()
        if amount
    ]
    return min(counts) if counts else 0


def room(nodes: Iterable[Resources], each: Resources) -> int:
    """Return how many processes fit on several nodes."""
    return sum(fitting(node, each) for node in nodes)


def most_cpus(nodes: Sequence[Resources], each: Resources, count: int, left: float = 0) -> int:
    """Return how many whole CPUs each of ``count`` processes can have if all of them fit; 1 if they don't.

    ``each`` are further resources of a process, ``left`` the part of its last CPU that it leaves to others.
    """
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    enough = (cpus for cpus in range(most, 1, -1) if room(nodes, {**each, "CPU": cpus - left}) >= count)
    return next(enough, 1)


def shared_gpu(nodes: Sequence[Resources], each: Resources, count: int) -> float:
    """Return the part of a GPU, 1 or 1/2 or 1/3 and so on, that each of ``count`` processes can have if all fit.

    At least one node has a GPU. If no part lets all processes fit, they share all GPUs evenly.
    """
    parts = (1 / sharing for sharing in range(1, count + 1))
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    return next((part for part in parts if room(nodes, {**each, "GPU": part}) >= count), 1 / -(-count // gpus))


def describe_resources(amounts: Resources) -> list[str]:
    """Return amounts as text: ``2 CPUs``, ``0.25 GPU``, ``1.2 GiB memory``."""
    return [
        f"{describe_bytes(amount)} memory" if name == "memory" else f"{amount:g} {name}{'s' * (amount > 1)}"
        for name, amount in amounts.items()
    ]
