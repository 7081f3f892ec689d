"""Plan a search: how many trials run at once, with which resources, and what they cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fer_ray.cluster.resources import Resources, describe_resources, most_cpus, room, shared_gpu
from fer_ray.config.paths import value_at
from fer_ray.console.text import amount, describe_bytes, duration
from fer_ray.errors import UsageError
from fer_ray.search.confirmation import CONFIGURATIONS, SEEDS
from fer_ray.search.request import SearchRequest
from fer_ray.search.strategy import longest_trial
from fer_ray.search.trial_cost import TrialCost
from fer_ray.search.trial_records import short


@dataclass(frozen=True)
class Allocation:
    """Resources of the trials that run at once."""

    concurrent: int  # trials at once
    workers: int  # processes per trial
    resources: dict[str, float]  # of one process, by Ray's names
    reason: str  # why this many trials run at once
    max_concurrent: int | None = None  # requested limit on trials at once; without one, more trials run when nodes join

    @property
    def threads(self) -> int:
        """Number of CPU threads of one process."""
        return int(self.resources["CPU"])

    @property
    def processes(self) -> int:
        """Number of processes of all trials that run at once."""
        return self.concurrent * self.workers


Costs = Mapping[str, TrialCost]  # cost of a process by the name of its space; empty if nothing was measured


def allocate(
    nodes: Sequence[Resources],
    trials: int,
    max_concurrent: int | None,
    workers: int = 1,
    cpus: int | None = None,
    gpus: float | None = None,
    memory: int = 0,
    gpu_fraction: float = 0,
) -> Allocation:
    """Divide the resources of a cluster among trials that run at once.

    Without ``max_concurrent``, that is one per GPU, or one per CPU core without GPUs, as far as they fit: small
    convolutions gain little from a second thread, so many trials with one thread finish earlier. ``cpus`` and ``gpus``
    are those of all ``workers`` of a trial; by default each has a GPU if a trial finds that many, else none. ``memory``
    in bytes and ``gpu_fraction`` of a GPU's memory are what one process takes; 0 if unknown.
    """
    process: dict[str, float] = {"CPU": 1 if cpus is None else cpus / workers}
    with_gpu = room(nodes, {**process, "GPU": 1})
    if gpus or (gpus is None and with_gpu >= workers):
        process["GPU"] = 1 if gpus is None else gpus / workers
    fit = room(nodes, process) // workers
    reason = "as many as fit"
    if workers == 1 and cpus is None and gpus is None:
        by_gpu = "GPU" in process and fit == int(sum(node.get("GPU", 0) for node in nodes))
        reason = "one per GPU" if by_gpu else "one per CPU core"
    if memory and (fit_memory := room(nodes, {**process, "memory": memory}) // workers) < fit:
        fit, reason = fit_memory, f"a process takes {describe_bytes(memory)} of memory"
    concurrent = max(1, fit)
    if max_concurrent is not None:
        concurrent, reason = max_concurrent, "as requested"
    if trials < concurrent:
        concurrent, reason = max(1, trials), "no more trials are left"
    if gpus is None and workers == 1 and with_gpu:
        process["GPU"] = max(shared_gpu(nodes, process, concurrent), gpu_fraction)
    if gpus is None and "GPU" not in process and any(node.get("GPU") for node in nodes):
        reason += f"; without GPUs: only {with_gpu} of {amount(workers, 'worker')} of a trial would get one"
    if memory:
        process["memory"] = memory
    if cpus is None:
        process["CPU"] = most_cpus(nodes, process, concurrent * workers)
    return Allocation(concurrent, workers, process, reason, max_concurrent)


def require_gpu_memory(allocation: Allocation, costs: Costs) -> None:
    """Raise a ``UsageError`` if a process gets a smaller fraction of a GPU than the memory that it takes."""
    fraction, gpus = gpu_fraction(costs), allocation.resources.get("GPU", 0)
    if fraction > gpus > 0:
        raise UsageError(
            f"{gpus:g} GPU per process: PyTorch reserved {fraction:.0%} of a GPU's memory in one step. Raise"
            " --gpus-per-trial, or lower training.batch_size or --max-concurrent."
        )


def gpu_fraction(costs: Costs) -> float:
    """Return the fraction of a GPU's memory that one process takes, rounded up to hundredths; 0 on CPUs."""
    return math.ceil(100 * max((cost.gpu for cost in costs.values()), default=0)) / 100


def summary(allocation: Allocation) -> str:
    """Return an allocation as one line, for the start of a search."""
    workers = f" of {allocation.workers} workers" if allocation.workers > 1 else ""
    return (
        f"{amount(allocation.concurrent, 'trial')}{workers} at once ({allocation.reason}), each process with"
        f" {' and '.join(describe_resources(allocation.resources))}."
    )


def describe_plan(request: SearchRequest, allocation: Allocation, costs: Costs, nodes: Sequence[Resources]) -> str:
    """Return the plan of a search in full, for ``--dry-run``."""
    strategy, options = request.strategy, request.options
    budget = "" if options.seconds is None else f", for at most {duration(options.seconds)}"
    objectives = " and ".join(strategy.objectives)
    lines = [
        f"{options.trials} trials{budget}: {summary(allocation)}",
        f"dataset: {request.dataset.path}; objective: best validation {objectives} over a trial's epochs",
        f"sampler: {strategy.sampler}; scheduler: {strategy.scheduler}",
        *strategy.notes(),
    ]
    for name, space in request.spaces.items():
        lines.append(f"space {name}: {space.model.name}, {space.training.epochs} epochs")
        for path, by in space.search.items():
            values = ", ".join(map(short, by.values))
            lines.append(f"  {path}: {by.kind} [{values}], first {short(value_at(space, path))}")
    memory, processes = TrialCost.most(costs.values()).memory, allocation.processes
    lines.append(
        f"memory: {describe_bytes(memory)} per process (measured); {processes} at once take"
        f" {describe_bytes(processes * memory)} of the {describe_bytes(sum(node.get('memory', 0) for node in nodes))}"
        f" that Ray may use on {amount(len(nodes), 'node')}"
    )
    if part := gpu_fraction(costs):
        lines.append(f"GPU memory: {part:.0%} of a GPU per process (measured)")
    lines += _describe_time(request, allocation, costs)
    if options.confirm:
        lines.append(f"then the best {CONFIGURATIONS} configurations with {SEEDS} new seeds each: confirm/")
    return "\n".join([*lines, f"output: {request.run.path_or_url}: study.db, trials.parquet, best.yaml, best/"])


def _describe_time(request: SearchRequest, allocation: Allocation, costs: Costs) -> Iterator[str]:
    longest, budget = 0.0, request.options.seconds
    for name, space in request.spaces.items():
        cost, epochs = costs[name], longest_trial(space)
        trial = cost.trial_seconds(space, epochs, request.dataset.info, allocation.workers)
        longest = max(longest, trial)
        yield (
            f"a trial of {name}: {epochs} epochs in {duration(trial)}; measured images/s of a process:"
            f" {1 / cost.train:,.0f} trained, {1 / cost.validate:,.0f} validated"
        )
    rounds = math.ceil(request.options.trials / allocation.concurrent)
    total = rounds * longest
    yield (
        f"time: at most {duration(total)} = {rounds} × {duration(longest)}, if no trial stops"
        " early and every trial costs as much as the defaults"
        + " of the slowest space" * (len(costs) > 1)
        + "; the time budget ends the search earlier" * (budget is not None and total > budget)
    )
