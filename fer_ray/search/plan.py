"""How a search shares out a cluster, and what it takes of time, memory and disk."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.cluster.resources import Resources, describe_resources, most_cpus, room, shared_gpu
from fer_ray.config.paths import value_at
from fer_ray.config.search_space import Searched, SearchSpace, values_of
from fer_ray.console.text import amount, describe_bytes, duration
from fer_ray.search.confirmation import CONFIGURATIONS, SEEDS
from fer_ray.search.request import SearchRequest, TrialResources
from fer_ray.search.trial_cost import TrialCost
from fer_ray.search.trial_records import short


@dataclass(frozen=True)
class Allocation:
    """How the cluster is shared out.

    Attributes:
        concurrent: trials at once.
        workers: processes of one trial.
        resources: of one process, as Ray names them.
        reason: why so many at once.
    """

    concurrent: int
    workers: int
    resources: dict[str, float]
    reason: str

    @property
    def threads(self) -> int:
        """CPU threads of one process."""
        return int(self.resources["CPU"])

    @property
    def processes(self) -> int:
        """Of all trials that run at once."""
        return self.concurrent * self.workers


@dataclass(frozen=True)
class SearchPlan:
    """A share and what the trials cost in it.

    Attributes:
        costs: of one process, by the name of the space, trained with its defaults; empty where nothing was measured,
            so that memory and disk aren't known.
        start: seconds until a process is ready to train.
    """

    share: Allocation
    costs: dict[str, TrialCost]
    start: float

    @property
    def memory(self) -> int:
        """Bytes of one process, whichever space it trains."""
        return max((cost.memory for cost in self.costs.values()), default=0)

    @property
    def disk(self) -> int:
        """Bytes that the search's folder ever holds, beside the study and its page.

        While a checkpoint is replaced, the previous one still is there.
        """
        best = max((cost.best for cost in self.costs.values()), default=0)
        last = max((cost.last for cost in self.costs.values()), default=0)
        return self.share.concurrent * (best + 2 * last) + 2 * best


def share_out(
    nodes: Sequence[Resources],
    trials: int,
    max_concurrent: int | None,
    needs: TrialResources = TrialResources(),  # noqa: B008  # frozen
    memory: int = 0,
    gpu_part: float = 0,
) -> Allocation:
    """Share a cluster among trials that run at once.

    Args:
        nodes: resource name to amount, for each node.
        trials: that are left to run.
        max_concurrent: trials at once; None for a trial a GPU, or without GPUs a trial a CPU core, as far as they fit.
            Small convolutions gain little from a second thread, so that many one-thread trials finish earlier.
            Unless GPUs are asked for, a process has one where a trial finds as many as it has workers, else none.
        needs: what each trial shall have.
        memory: bytes that one process takes; 0 where that isn't known.
        gpu_part: of a GPU, that one process takes of its memory; 0 where that isn't known.
    """
    process: dict[str, float] = {"CPU": 1 if needs.cpus is None else needs.cpus / needs.workers}
    with_gpu = room(nodes, {**process, "GPU": 1})
    if needs.gpus or (needs.gpus is None and with_gpu >= needs.workers):
        process["GPU"] = 1 if needs.gpus is None else needs.gpus / needs.workers
    concurrent, reason = _concurrent(nodes, process, needs, memory)
    if max_concurrent is not None:
        concurrent, reason = max_concurrent, "as asked"
    if trials < concurrent:
        concurrent, reason = max(1, trials), "no more are left to run"
    if needs.gpus is None and needs.workers == 1 and with_gpu:
        process["GPU"] = max(shared_gpu(nodes, process, concurrent), gpu_part)
    if needs.gpus is None and "GPU" not in process and any(node.get("GPU") for node in nodes):
        reason += f"; without GPUs, as {with_gpu} of a trial's {amount(needs.workers, 'worker')} would find one"
    if memory:
        process["memory"] = memory
    if needs.cpus is None:
        process["CPU"] = most_cpus(nodes, process, concurrent * needs.workers)
    return Allocation(concurrent, needs.workers, process, reason)


def _concurrent(nodes: Sequence[Resources], process: Resources, needs: TrialResources, memory: int) -> tuple[int, str]:
    """How many trials fit at once, and what keeps more away."""
    fit = room(nodes, process) // needs.workers
    if memory and (fit_memory := room(nodes, {**process, "memory": memory}) // needs.workers) < fit:
        return max(1, fit_memory), f"a process takes {describe_bytes(memory)} of memory"
    if needs != TrialResources():
        return max(1, fit), "as many as fit"
    by_gpu = "GPU" in process and fit == int(sum(node.get("GPU", 0) for node in nodes))
    return max(1, fit), "one a GPU" if by_gpu else "one a CPU core"


def plan_problems(plan: SearchPlan, request: SearchRequest) -> list[str]:
    """Say what of the measured costs doesn't fit, beside what ``runtime.require`` finds."""
    problems, free = [], free_disk(request.run.path)
    if plan.disk > free:
        problems.append(
            f"{request.run.name}: {_disk(plan, free)}. Free some, name an --output elsewhere, or lower"
            " --max-concurrent."
        )
    part, gpus = gpu_part(plan.costs), plan.share.resources.get("GPU", 0)
    if part > gpus > 0:
        problems.append(
            f"{gpus:g} GPU a process: PyTorch reserved {part:.0%} of a GPU's memory in a step. Raise --gpus-per-trial,"
            " or lower training.batch_size or --max-concurrent."
        )
    return problems


def gpu_part(costs: Mapping[str, TrialCost]) -> float:
    """Return the part of a GPU whose memory one process takes, rounded up to hundredths; 0 on CPUs."""
    parts = [cost.gpu_memory / cost.gpu_size for cost in costs.values() if cost.gpu_size]
    return math.ceil(100 * max(parts, default=0)) / 100


def free_disk(folder: Path) -> int:
    """Return the free bytes where a folder is or will be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def summary(plan: SearchPlan) -> str:
    """Return a plan in a line, for the beginning of a search."""
    share = plan.share
    workers = f" of {share.workers} workers" if share.workers > 1 else ""
    return (
        f"{amount(share.concurrent, 'trial')}{workers} at once ({share.reason}), each process with"
        f" {' and '.join(describe_resources(share.resources))}"
        + (f"; at most {describe_bytes(plan.disk)} of disk." if plan.costs else ".")
    )


def describe_plan(request: SearchRequest, plan: SearchPlan, nodes: Sequence[Resources]) -> str:
    """Return what a search would do and take, for ``--dry-run``."""
    share, strategy = plan.share, request.strategy
    each = " and ".join(
        describe_resources({name: share.resources[name] for name in share.resources if name != "memory"})
    )
    process = f"with {each}" if share.workers == 1 else f"on {share.workers} workers with {each}"
    budget = "" if request.time_budget is None else f", for at most {duration(request.time_budget)}"
    objectives = " and ".join(strategy.objectives)
    lines = [
        f"{request.trials} trials{budget}, {share.concurrent} at once ({share.reason}), each {process}",
        f"dataset: {request.dataset.path}; objective: best validation {objectives} over a trial's epochs",
        f"sampler: {strategy.sampler}; scheduler: {strategy.scheduler}",
        *strategy.notes(),
    ]
    for name, space in request.spaces.items():
        lines.append(f"space {name}: {space.model.name}, {space.training.epochs} epochs")
        lines += _describe_search(space, space.search, "  ", first=True)
    lines += [*_describe_costs(request, plan, nodes), *_describe_time(request, plan)]
    if request.confirm:
        lines.append(f"then the best {CONFIGURATIONS} configurations again, with {SEEDS} new seeds each: confirm/")
    lines.append(f"output: {request.run.name}: study.db, trials.parquet, best.yaml, best/")
    return "\n".join(lines)


def _describe_costs(request: SearchRequest, plan: SearchPlan, nodes: Sequence[Resources]) -> list[str]:
    """Return a line on memory and one on disk."""
    held = sum(node.get("memory", 0) for node in nodes)
    lines = [
        f"memory: {describe_bytes(plan.memory)} a process, as measured; {plan.share.processes} at once take"
        f" {describe_bytes(plan.share.processes * plan.memory)} of the {describe_bytes(held)} that Ray gives out"
        + (f" on {len(nodes)} nodes" if len(nodes) > 1 else "")
    ]
    if part := gpu_part(plan.costs):
        lines.append(f"GPU memory: {part:.0%} of a GPU a process, as measured")
    lines.append(f"disk: {_disk(plan, free_disk(request.run.path))}")
    return lines


def _disk(plan: SearchPlan, free: int) -> str:
    best = max(cost.best for cost in plan.costs.values())
    last = max(cost.last for cost in plan.costs.values())
    return (
        f"at most {describe_bytes(plan.disk)} = {plan.share.concurrent} running × (best {describe_bytes(best)} + 2 ×"
        f" last {describe_bytes(last)}) + 2 × best/, of {describe_bytes(free)} free"
    )


def _describe_time(request: SearchRequest, plan: SearchPlan) -> Iterator[str]:
    """A line a space, and one for the whole search: the longest that it can take."""
    share, info = plan.share, request.dataset.info
    longest = 0.0
    for name, space in request.spaces.items():
        cost, config = plan.costs[name], _longest(space)
        trial = cost.trial_seconds(config, info, share.workers)
        longest = max(longest, trial)
        speeds = [f"{1 / seconds:,.0f} of {side} pixels" for side, seconds in sorted(cost.train.items())]
        yield (
            f"a trial of {name}: {config.training.epochs} epochs in {duration(trial)}; images/s of a process, as"
            f" measured: {', '.join([*speeds, f'{1 / cost.validate:,.0f} validated'])}"
        )
    rounds = math.ceil(request.trials / share.concurrent)
    starts = plan.start * (rounds if share.workers > 1 else 1)
    total = starts + rounds * longest
    ends = request.time_budget is not None and total > request.time_budget
    yield (
        f"time: at most {duration(total)} = {rounds} × {duration(longest)} + {duration(starts)} to start, with nothing"
        " stopped early and every trial as costly as the defaults"
        + (" of the slowest space" * (len(plan.costs) > 1))
        + ("; the time budget ends it before" if ends else "")
    )


def _longest(space: SearchSpace) -> SearchSpace:
    """The defaults with as many epochs as any candidate may have."""
    epochs = max([space.training.epochs, *values_of(space.search, "training.epochs")])
    return space.model_copy(update={"training": space.training.model_copy(update={"epochs": epochs})})


def _describe_search(space: SearchSpace, search: Searched, indent: str, first: bool) -> Iterator[str]:
    """A line a path, those of an option below it; the first value is named where the defaults take this branch."""
    for path, distribution in search.items():
        values = ", ".join(short(value) for value in distribution.values)
        if distribution.kind == "fixed":
            yield f"{indent}{path}: {values}"
            continue
        yield f"{indent}{path}: {distribution.kind} [{values}]" + f", first {short(value_at(space, path))}" * first
        for value in distribution.values if distribution.branches else ():
            _, brought = distribution.branch(value)
            if brought:
                yield f"{indent}  {short(value)}:"
                yield from _describe_search(space, brought, f"{indent}    ", first and value == value_at(space, path))
