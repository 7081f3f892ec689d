"""What a trial costs the study's database and the driver, by the number of trials that the study has.

    python tests/benchmarks/study_scale.py --trials 100 1000 --json scaling_measured.json

Fills a study with finished trials that were never trained, and then asks for some, reports two epochs of each and
completes it, as the driver of a search does; no Ray, nothing trained, TPE over four values. Counts SQL statements and
transactions, and the seconds of drawing, of reporting an epoch and of completing. PostgreSQL is measured where it is
installed: a server without ``fsync``, through a Unix socket. SQLite keeps its default, which waits for the disk.

``gradients``: bytes of each architecture's gradients, and the seconds in which two processes on this machine add up
those of ``fast`` through gloo.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from cluster_scale import keep
from optuna.trial import FrozenTrial, TrialState
from postgres import new_database, running_server
from ray_nodes import free_port
from search_many import SPACE
from sqlalchemy import event
from sqlalchemy.engine import Engine

from fer_ray import models
from fer_ray.config.files import load_search_space
from fer_ray.config.schema import Config, ModelConfig
from fer_ray.models.registry import architectures
from fer_ray.search.study import Candidate, Study

EPOCHS = 2
SPENT = 20  # trials measured at each size of the study


class Database:
    """Counts what is asked of databases."""

    def __init__(self) -> None:
        self.counted = Counter[str]()
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "commit", lambda connection: self.counted.update(["commits"]))

    def _statement(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        kind = "reads" if statement.lstrip().upper().startswith("SELECT") else "writes"
        self.counted[kind] += 1


def accuracy_of(config: Config) -> float:
    """Return what a trial is made to reach."""
    return 1 - abs(config.model.dropout - 0.3) - abs(config.loss.class_weight_power - 0.5) / 2


def fill(study: Study, trials: int) -> None:
    """Bring a study to so many finished trials, copies of one of its own with other values."""
    inner = study._study
    previous = [trial for trial in inner.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    generator = np.random.default_rng(len(previous))
    for _ in range(trials - len(previous)):
        one: FrozenTrial = previous[-1]
        values = {
            name: float(
                np.exp(generator.uniform(*np.log([of.low, of.high]))) if of.log else generator.uniform(of.low, of.high)
            )
            if isinstance(of, optuna.distributions.FloatDistribution)
            else one.params[name]
            for name, of in one.distributions.items()
        }
        value = float(generator.uniform(0.2, 0.6))
        inner.add_trial(
            optuna.trial.create_trial(
                params=values,
                distributions=one.distributions,
                value=value,
                user_attrs=one.user_attrs,
                intermediate_values={1: value / 2, 2: value},
            )
        )


def one_trial(study: Study, database: Database, spent: dict[str, list[float]], counts: Counter[str]) -> None:
    """Take a trial through its life, the seconds and the calls of the database by what it does."""

    def timed(what: str, work: Any) -> Any:
        database.counted.clear()
        began, cpu = time.perf_counter(), time.process_time()
        result = work()
        spent.setdefault(what, []).append(time.perf_counter() - began)
        spent.setdefault(f"{what} CPU", []).append(time.process_time() - cpu)
        for kind, number in database.counted.items():
            counts[f"{what} {kind}"] += number
        return result

    candidate: Candidate = timed("ask", study.ask)
    value = accuracy_of(candidate.config)
    for epoch in range(1, EPOCHS + 1):
        metrics = {"epoch": float(epoch), "seconds": 1.0, "validation_accuracy": value, "validation_macro_f1": value}
        timed("report", lambda metrics=metrics: study.report(candidate.number, metrics))
    timed("complete", lambda: study.complete(candidate.number))


def measure(name: str, storage: str, sizes: list[int]) -> list[dict[str, Any]]:
    """Return what a trial takes, at each size of the study."""
    database, results = Database(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "space.yaml"
        file.write_text(SPACE)
        spaces = {"space": load_search_space(file)}
    study = Study.create("scale", storage, spaces, "none")
    for _ in range(15):  # the defaults, and random ones before TPE begins
        one_trial(study, database, {}, Counter())
    for size in sizes:
        fill(study, size)
        study = Study.load("scale", storage, "none")
        one_trial(study, database, {}, Counter())  # reads the whole study
        spent, counts = dict[str, list[float]](), Counter[str]()
        for _ in range(SPENT):
            one_trial(study, database, spent, counts)
        per = {"ask": SPENT, "report": SPENT * EPOCHS, "complete": SPENT}
        results.append(
            {
                "database": name,
                "trials": size,
                "seconds": {what: statistics.median(values) for what, values in spent.items()},
                "calls": {what: number / per[what.split()[0]] for what, number in sorted(counts.items())},
            }
        )
        print(results[-1], flush=True)
    return results


def _add_up(rank: int, port: int, count: int, answer: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    gradients, seconds = torch.ones(count), []
    for _ in range(20):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(gradients)
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        answer.put(seconds[5:])
    dist.destroy_process_group()


def gradients() -> dict[str, Any]:
    """Return bytes of gradients by architecture, and seconds of adding up those of ``fast``."""
    sizes = {}
    for one in architectures():
        network = models.build(ModelConfig(name=one.name), 48)
        sizes[one.name] = 4 * sum(parameter.numel() for parameter in network.parameters())
    context = multiprocessing.get_context("spawn")
    answer, port = context.Queue(), free_port()
    processes = [context.Process(target=_add_up, args=(rank, port, sizes["fast"] // 4, answer)) for rank in range(2)]
    for process in processes:
        process.start()
    seconds = answer.get()
    for process in processes:
        process.join()
    return {"bytes": sizes, "fast_all_reduce_s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000], help="that the study has")
    parser.add_argument("--databases", nargs="+", choices=["SQLite", "PostgreSQL"], default=["SQLite", "PostgreSQL"])
    parser.add_argument("--json", type=Path, help="to add the measurements to")
    arguments = parser.parse_args()
    measured = gradients()
    print(measured, flush=True)
    keep(arguments.json, gradients=measured)
    studies = list[dict[str, Any]]()
    with ExitStack() as stack, suppress(pytest.skip.Exception):
        for database in arguments.databases:
            if database == "SQLite":
                storage = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/study.db"
            else:
                storage = new_database(stack.enter_context(running_server()), "scale")
            storage = storage.replace("postgresql://", "postgresql+psycopg://")
            studies += measure(database, storage, sorted(arguments.trials))
            keep(arguments.json, study=studies)


if __name__ == "__main__":
    main()
