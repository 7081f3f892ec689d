"""Before a search: how many trials the cluster holds at once, going by a measured step of each space."""

import time
from collections.abc import Callable, Mapping
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
from fer_ray.search.plan import Allocation, SearchPlan, gpu_part, plan_problems, share_out
from fer_ray.search.request import SearchRequest
from fer_ray.search.trial_cost import TrialCost, measure_trial
from fer_ray.training.rows import TrainingData

AMPLE = 4 << 30
"""Bytes of a node's memory a process, from which on a search asks no more how much it takes; of `fast` and `cnn3` with
their batch of 128 images it is 1.2 GiB."""
Measured = tuple[dict[str, TrialCost], float]
"""What a process of each space costs, where that was measured, and the seconds until it was ready."""
Measure = Callable[[SearchRequest, TrainingData, Allocation], Measured]


def preflight(request: SearchRequest, data: TrainingData, trials: int, measure: Measure) -> SearchPlan:
    """Plan a search by what its trials are measured to cost.

    Args:
        trials: that are left to run.
        measure: ``measure_costs`` or ``measure_where_tight``.

    Raises:
        UsageError: the trials fit nowhere, or not as asked; the message shows the arithmetic.
    """
    share = share_cluster(request, trials, {})
    named = {place for space in request.spaces.values() for place in external_paths(space.defaults)}
    require_seen_by_nodes(sorted(named), request.run.name)
    costs, start = measure(request, data, share)
    plan = SearchPlan(share_cluster(request, trials, costs), costs, start)
    if problems := plan_problems(plan, request):
        raise UsageError(problems)
    return plan


def share_cluster(request: SearchRequest, trials: int, costs: Mapping[str, TrialCost]) -> Allocation:
    """Share out the cluster, which is connected to or started.

    Args:
        trials: that are left to run.
        costs: of a process of each space, where they are known already.

    Raises:
        UsageError: the trials fit nowhere; the message shows the arithmetic.
    """
    # Ray Train asks the dashboard for the state of actors, to clean up after those that died.
    connect.connect(dashboard=request.needs.workers > 1)
    memory = max((cost.memory for cost in costs.values()), default=0)
    share = share_out(connect.nodes(), trials, request.max_concurrent, request.needs, memory, gpu_part(costs))
    workers = f"workers of {amount(share.concurrent, 'trial')} at once"
    connect.require(share.processes, share.resources, "trials at once" if share.workers == 1 else workers)
    return share


def measure_where_tight(request: SearchRequest, data: TrainingData, share: Allocation) -> Measured:
    """Measure as ``measure_costs`` where memory may be what keeps trials from running at once; else nothing.

    It takes some seconds, as Ray runs no trial in a process that measured: worth it before processes are killed for
    lack of memory, and no good to a search that has plenty.
    """
    parts = [node.get("memory", 0) / count for node in connect.nodes() if (count := fitting(node, share.resources))]
    if min(parts, default=0) < AMPLE or 0 < share.resources.get("GPU", 0) < 1:
        return measure_costs(request, data, share)
    return {}, 0.0


def measure_costs(request: SearchRequest, data: TrainingData, share: Allocation) -> Measured:
    """Measure a step of each space's defaults, in as many processes at once as trials will be, on one node.

    Raises:
        UsageError: a step fails, for lack of memory above all.
    """
    say(f"Measuring a step of {', '.join(request.spaces)}.")
    rows = ray.put(data)
    resources = dict(share.resources)
    task = ray.remote(max_calls=1)(_measure).options(  # else the process stays, and keeps its part of a GPU's memory
        num_cpus=resources.pop("CPU"), num_gpus=resources.pop("GPU", 0), resources=resources, max_retries=0
    )
    count = min(share.processes, connect.most_on_a_node(share.resources))
    began = time.monotonic()
    try:
        results = ray.get([task.remote(request, rows, share.threads) for _ in range(count)])
    except (RayTaskError, OutOfMemoryError, WorkerCrashedError) as error:
        raise _refusal(error) from error
    start = time.monotonic() - began - max(seconds for _, seconds in results)
    return {name: TrialCost.most([costs[name] for costs, _ in results]) for name in request.spaces}, start


def _measure(request: SearchRequest, data: TrainingData, threads: int) -> tuple[dict[str, TrialCost], float]:
    """In a process such as a trial's: the cost of each space, and the seconds that measuring took."""
    began = time.monotonic()
    torch.set_num_threads(threads)
    connect.hide_unasked_gpus()
    costs = {name: measure_trial(space.defaults, data, request.needs.workers) for name, space in request.spaces.items()}
    return costs, time.monotonic() - began


def _refusal(error: Any) -> Exception:
    cause = getattr(error, "cause", error)
    if not is_out_of_memory(cause) and not isinstance(error, WorkerCrashedError):
        return cause if isinstance(cause, Exception) else error
    return UsageError(
        f"a measured step of the defaults needs more memory than there is: {str(cause).splitlines()[0]}. Lower"
        " training.batch_size or --max-concurrent, or choose a smaller network."
    )
