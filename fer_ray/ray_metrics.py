"""What is done on Ray as metrics of Ray's, which Prometheus scrapes with Ray's own, there with ``ray_`` in front.

===============================  =======  =============================================================================
metric                           kind     what
===============================  =======  =============================================================================
``fer_ray_images_total``         counter  images done by ``stage`` (``prepare``, ``train``, ``tune``, ``score``) and
                                          ``status``: of scoring that of the row; of preparing ``ok`` or ``rejected``;
                                          of training ``ok``, an image once an epoch
``fer_ray_images_per_second``    gauge    of the last seconds, by ``stage``; 0 once it has ended
``fer_ray_failures_total``       counter  trials and workers that failed, by ``stage`` and ``kind``: ``out_of_memory``,
                                          ``lost`` with their process or node, ``error``
``fer_ray_trials_total``         counter  trials closed, by ``state``: ``COMPLETE``, ``PRUNED``, ``FAIL``, and
                                          ``INTERRUPTED``, which another one goes on with
``fer_ray_trials_running``       gauge    trials under way
``fer_ray_best_value``           gauge    of a search's first ``objective``, the best so far
``fer_ray_epoch``                gauge    the last finished epoch of training through Ray Train
``fer_ray_validation_accuracy``  gauge    its accuracy, 0 to 1
``fer_ray_validation_loss``      gauge    its loss
===============================  =======  =============================================================================

To be used where this process is connected to Ray. Ray sends them on every few seconds; a call here costs microseconds.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ray.util.metrics import Counter, Gauge

if TYPE_CHECKING:  # they import PyTorch, for which neither scoring's driver nor the progress actor waits
    from fer_ray.learning.loop import Metrics
    from fer_ray.learning.objectives import Objective
    from fer_ray.learning.trial_records import TrialRecord

_WINDOW_S = 5.0  # that images/s are of


class Throughput:
    """Counts a stage's images, as a context manager.

    Args:
        stage: its name.
    """

    def __init__(self, stage: str):
        self._stage = {"stage": stage}
        self._since, self._images = time.monotonic(), 0

    def __enter__(self) -> Self:
        return self

    def add(self, images: int | Mapping[str, int]) -> None:
        """Count images, or by status how many."""
        for status, count in ({"ok": images} if isinstance(images, int) else images).items():
            if count > 0:
                _counter("images", "Images done.", "stage", "status").inc(count, self._stage | {"status": status})
                self._images += count
        seconds = time.monotonic() - self._since
        if seconds >= _WINDOW_S:
            self._show(self._images / seconds)
            self._since, self._images = time.monotonic(), 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(0)

    def _show(self, rate: float) -> None:
        _gauge("images_per_second", "Images a second, of the last seconds.", "stage").set(rate, self._stage)


class TrialCounts:
    """Counts the trials of a search; a ``fer_ray.learning.search_log.Watcher``.

    Args:
        objective: the search's first one.
    """

    def __init__(self, objective: Objective):
        self._objective, self._running = objective, set[int]()

    def began(self, number: int) -> None:
        """Note that a trial runs."""
        self._running.add(number)
        self._show_running()

    def closed(self, record: TrialRecord, best: TrialRecord | None) -> None:
        """Note that a trial has ended, and which one is the best by now."""
        self._running.discard(record.number)
        state = "INTERRUPTED" if record.interrupted else record.state
        _counter("trials", "Trials closed.", "state").inc(1, {"state": state})
        if best and best.reached is not None:
            tags = {"objective": self._objective.name}
            _gauge("best_value", "Of the first objective, the best so far.", "objective").set(best.reached, tags)
        self._show_running()

    def _show_running(self) -> None:
        _gauge("trials_running", "Trials under way.").set(len(self._running))


def count_failure(stage: str, kind: str) -> None:
    """Count the failure of a trial or worker; ``kind`` is that of ``fer_ray.learning.trial_failure.Failure``."""
    _counter("failures", "Trials and workers that failed.", "stage", "kind").inc(1, {"stage": stage, "kind": kind})


def show_epoch(metrics: Metrics) -> None:
    """Show an epoch's figures, as ``fit`` reports them."""
    _gauge("epoch", "The last finished epoch.").set(metrics["epoch"])
    _gauge("validation_accuracy", "Of the last epoch, 0 to 1.").set(metrics["validation_accuracy"])
    _gauge("validation_loss", "Of the last epoch.").set(metrics["validation_loss"])


@functools.cache
def _counter(name: str, what: str, *tags: str) -> Counter:
    return Counter(f"fer_ray_{name}_total", what, tags)


@functools.cache
def _gauge(name: str, what: str, *tags: str) -> Gauge:
    return Gauge(f"fer_ray_{name}", what, tags)
