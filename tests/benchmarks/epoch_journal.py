"""A journal of what several processes train: each epoch with its moment, whoever runs the search."""

import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fer_ray.config.schema import Config
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Report, Snapshot


@dataclass(frozen=True)
class Entry:
    """An epoch; ``epoch`` 0 is the beginning of a trial.

    Attributes:
        moment: seconds by the clock of the machine, before the epoch is reported.
        seconds: spent in it, training and validating.
        images: trained on in it.
    """

    trial: str
    process: int
    moment: float
    epoch: int
    epochs: int
    accuracy: float = 0.0
    seconds: float = 0.0
    images: int = 0


@dataclass(frozen=True)
class Journal:
    """Trains as ``fit`` does and notes each epoch in a file, a line each, that all processes of the machine share."""

    file: Path

    def __call__(self, config: Config, data: TrainingData, report: Report, *, resume_from: Path | None = None) -> None:
        trial, epochs = uuid.uuid4().hex, config.training.epochs
        self._note(Entry(trial, os.getpid(), time.time(), 0, epochs))

        def noted(metrics: Metrics, snapshot: Snapshot) -> None:
            figures = metrics["validation_accuracy"], metrics["seconds"], len(data.train)
            self._note(Entry(trial, os.getpid(), time.time(), int(metrics["epoch"]), epochs, *figures))
            report(metrics, snapshot)

        fit(config, data, noted, resume_from=resume_from)

    def _note(self, entry: Entry) -> None:
        with self.file.open("a") as file:  # a line this short is appended as a whole
            file.write(json.dumps(vars(entry)) + "\n")

    def read(self, until: float = float("inf")) -> dict[str, list[Entry]]:
        """Return the entries of each trial up to a moment, in order."""
        trials = defaultdict(list)
        for line in self.file.read_text().splitlines():
            entry = Entry(**json.loads(line))
            if entry.moment <= until:
                trials[entry.trial].append(entry)
        return trials


def beyond_the_loop(trials: dict[str, list[Entry]]) -> Iterator[float]:
    """Yield each trial's seconds beyond its epochs, but for the first trial of each process.

    They are counted from the last epoch of the trial before in the same process to the trial's own last epoch, so that
    closing the one, choosing and starting the other, and keeping checkpoints are in them.
    """
    by_process = defaultdict(list)
    for entries in trials.values():
        by_process[entries[0].process].append(entries)
    for own in by_process.values():
        for before, trial in pairwise(sorted(own, key=lambda entries: entries[0].moment)):
            yield trial[-1].moment - before[-1].moment - sum(entry.seconds for entry in trial)


def busy_share(trials: dict[str, list[Entry]], begin: float, end: float, at_once: int) -> float:
    """Return the share of the time from ``begin`` to ``end`` that so many trials at once spent in epochs."""
    spans = [
        (entry.moment - entry.seconds, entry.moment) for entries in trials.values() for entry in entries if entry.epoch
    ]
    spent = sum(max(0.0, min(last, end) - max(first, begin)) for first, last in spans)
    return spent / (end - begin) / at_once


def all_begun(trials: dict[str, list[Entry]], at_once: int) -> float:
    """Return the moment at which so many processes had begun their first epoch."""
    begun = dict[int, float]()
    for entries in trials.values():
        for entry in entries[1:2]:
            begun[entry.process] = min(begun.get(entry.process, entry.moment), entry.moment - entry.seconds)
    return sorted(begun.values())[min(at_once, len(begun)) - 1]
