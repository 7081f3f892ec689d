"""One progress bar for several processes. Its actor imports only this module, so it starts without PyTorch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from fer_ray.cluster.connect import on_this_node
from fer_ray.cluster.metrics import count_images, gauge
from fer_ray.console.progress import ProgressBar, say

_INTERVAL_S = 0.5


class SharedProgress:
    """An actor that passes progress from the first worker to the driver."""

    def __init__(self) -> None:
        self.images, self.lines, self.epochs = 0, list[str](), list[dict[str, float]]()

    def update(self, images: int, epochs: list[dict[str, float]]) -> None:
        """Set the images since the beginning of the run, and add the metrics of finished epochs."""
        self.images = images
        self.epochs += epochs

    def say(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> tuple[int, list[str], list[dict[str, float]]]:
        """Return the images since the beginning of the run, and the lines and epochs since the last call."""
        lines, self.lines = self.lines, []
        epochs, self.epochs = self.epochs, []
        return self.images, lines, epochs


class ProgressSender:
    """Sends the first worker's progress to the actor, at most twice a second.

    The other workers take as many images a step, so the first one counts for all. ``epochs`` is the number of finished
    epochs, ``rows`` the images of an epoch over all workers.
    """

    def __init__(self, actor: Any, epochs: int, rows: int, workers: int, clock: Callable[[], float] = time.monotonic):
        self._actor, self._epochs, self._rows, self._workers, self._clock = actor, epochs, rows, workers, clock
        self._in_epoch, self._unsent = 0, list[dict[str, float]]()
        self.flush()

    def add(self, images: int) -> None:
        """Count images of this worker."""
        self._in_epoch = min(self._rows, self._in_epoch + images * self._workers)
        if self._clock() - self._sent >= _INTERVAL_S:
            self.flush()

    def finish_epoch(self, metrics: dict[str, float]) -> None:
        """Count an epoch, and queue its metrics."""
        self._epochs, self._in_epoch = self._epochs + 1, 0
        self._unsent.append(metrics)

    def flush(self) -> None:
        """Send everything now."""
        self._actor.update.remote(self._epochs * self._rows + self._in_epoch, self._unsent)
        self._unsent, self._sent = [], self._clock()


@contextmanager
def shared_progress(bar: ProgressBar, describe: Callable[[dict[str, float]], str]) -> Iterator[Any]:
    """Yield the handle of a ``SharedProgress`` actor. The bar shows its images and lines until the block ends."""
    options = {"num_cpus": 0, "scheduling_strategy": on_this_node(), "max_restarts": -1, "max_task_retries": -1}
    actor = ray.remote(SharedProgress).options(**options).remote()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(actor, bar, describe, done))
    watcher.start()
    try:
        yield actor
    finally:
        done.set()
        watcher.join()


def _watch(actor: Any, bar: ProgressBar, describe: Callable[[dict[str, float]], str], done: threading.Event) -> None:
    while True:
        last = done.wait(_INTERVAL_S)
        try:
            images, lines, epochs = ray.get(actor.take.remote())
        except RayError:  # the run fails with the actor's node, and ends with its own message
            return
        new = max(images, bar.start) - bar.done  # negative after workers restart
        bar.advance(new)
        count_images("train", ok=new)
        for metrics in epochs:
            gauge("epoch", "The last finished epoch.").set(metrics["epoch"])
            gauge("validation_accuracy", "Of the last epoch, 0 to 1.").set(metrics["validation_accuracy"])
            gauge("validation_loss", "Of the last epoch.").set(metrics["validation_loss"])
            say(describe(metrics))
        for line in lines:
            say(line)
        if last:
            return
