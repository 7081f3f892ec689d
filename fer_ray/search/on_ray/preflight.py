"""Plan a search before it starts: how many trials the cluster can run at once, by a measured step of each space."""

from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

from fer_ray.cluster import connect
from fer_ray.cluster.memory import is_out_of_memory
from fer_ray.cluster.node_checks import external_paths, require_seen_by_nodes
from fer_ray.cluster.resources import fitting
from fer_ray.console.progress import say
from fer_ray.console.text import amount
from fer_ray.errors import UsageError
from fer_ray.search.plan import Allocation, Costs, allocate, gpu_fraction, require_gpu_memory
from fer_ray.search.request import SearchRequest
from fer_ray.search.trial_cost import TrialCost, measure_trial
from fer_ray.training.rows import TrainingData

AMPLE = 4 << 30
"""Memory of a node per process, in bytes, above which a search doesn't measure how much a process takes. `fast` and
`cnn3` take 1.2 GiB with their batch of 128 images."""
Measure = Callable[[SearchRequest, TrainingData, Allocation], Costs]


def preflight(request: SearchRequest, data: TrainingData, trials: int, measure: Measure) -> tuple[Allocation, Costs]:
    """Plan a search of so many trials by their cost; ``measure`` is ``measure_costs`` or ``measure_where_tight``.

    ``UsageError``, with the arithmetic, if the trials don't fit the cluster.
    """
    allocation = allocate_cluster(request, trials, {})
    named = {place for space in request.spaces.values() for place in external_paths(space.defaults)}
    require_seen_by_nodes(sorted(named), request.run.path_or_url)
    costs = measure(request, data, allocation)
    allocation = allocate_cluster(request, trials, costs)
    require_gpu_memory(allocation, costs)
    return allocation, costs


def allocate_cluster(request: SearchRequest, trials: int, costs: Costs) -> Allocation:
    """Connect to the cluster, or start one, and divide its resources among so many trials; raises as ``preflight``."""
    # Ray Train asks the dashboard for the state of actors, to clean up after dead ones.
    connect.connect(dashboard=request.options.workers_per_trial > 1)
    memory = max((cost.memory for cost in costs.values()), default=0)
    asked = request.options
    each = asked.workers_per_trial, asked.cpus_per_trial, asked.gpus_per_trial
    allocation = allocate(connect.nodes(), trials, asked.max_concurrent, *each, memory, gpu_fraction(costs))
    workers = f"workers of {amount(allocation.concurrent, 'trial')} at once"
    connect.require(
        allocation.processes, allocation.resources, "trials at once" if allocation.workers == 1 else workers
    )
    return allocation


def measure_where_tight(request: SearchRequest, data: TrainingData, allocation: Allocation) -> Costs:
    """Measure with ``measure_costs`` if memory may limit the number of trials at once; else measure nothing.

    Measuring takes some seconds, because Ray doesn't run a trial in a process that measured.
    """
    parts = [
        node.get("memory", 0) / count for node in connect.nodes() if (count := fitting(node, allocation.resources))
    ]
    if min(parts, default=0) < AMPLE or 0 < allocation.resources.get("GPU", 0) < 1:
        return measure_costs(request, data, allocation)
    return {}


def measure_costs(request: SearchRequest, data: TrainingData, allocation: Allocation) -> Costs:
    """Measure a step of each space's defaults on one node, in as many processes at once as trials will run there.

    ``UsageError`` if a step fails, most likely because memory is too small.
    """
    say(f"Measuring a step of {', '.join(request.spaces)}.")
    rows = ray.put(data)
    resources = dict(allocation.resources)
    task = ray.remote(max_calls=1)(_measure).options(  # else the process stays and keeps its GPU memory
        num_cpus=resources.pop("CPU"), num_gpus=resources.pop("GPU", 0), resources=resources, max_retries=0
    )
    most = max(1, *(fitting(node, allocation.resources) for node in connect.nodes()))
    count = min(allocation.processes, most)
    try:
        results: list[Costs] = ray.get([task.remote(request, rows, allocation.threads) for _ in range(count)])
    except (RayTaskError, OutOfMemoryError, WorkerCrashedError) as error:
        raise _refusal(error) from error
    return {name: TrialCost.most(costs[name] for costs in results) for name in request.spaces}


def _measure(request: SearchRequest, data: TrainingData, threads: int) -> Costs:
    torch.set_num_threads(threads)
    connect.hide_unrequested_gpus()
    workers = request.options.workers_per_trial
    return {name: measure_trial(space.defaults, data, workers) for name, space in request.spaces.items()}


def _refusal(error: Any) -> Exception:
    cause = getattr(error, "cause", error)
    if not is_out_of_memory(cause) and not isinstance(error, WorkerCrashedError):
        return cause if isinstance(cause, Exception) else error
    return UsageError(
        f"a measured step of the defaults needs more memory than available: {str(cause).splitlines()[0]}. Lower"
        " training.batch_size or --max-concurrent, or choose a smaller network."
    )
