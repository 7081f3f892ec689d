"""One progress bar for several processes. Its actor imports only this module, so it starts without PyTorch."""

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
    """An actor that passes on images since the beginning of a run, lines for the user, and metrics, in order."""

    def __init__(self) -> None:
        self._items = list[int | str | dict[str, float]]()

    def put(self, *items: int | str | dict[str, float]) -> None:
        self._items += items

    def take(self) -> list[int | str | dict[str, float]]:
        """Return the items since the last call."""
        items, self._items = self._items, []
        return items


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
        """Count an epoch, and keep its metrics for the next message."""
        self._epochs, self._in_epoch = self._epochs + 1, 0
        self._unsent.append(metrics)

    def flush(self) -> None:
        """Send everything now."""
        self._actor.put.remote(self._epochs * self._rows + self._in_epoch, *self._unsent)
        self._unsent, self._sent = [], self._clock()


@contextmanager
def shared_progress(bar: ProgressBar, describe: Callable[[dict[str, float]], str]) -> Iterator[Any]:
    """Yield the handle of a ``SharedProgress`` actor. The bar shows its items until the block ends."""
    options = {"num_cpus": 0, "scheduling_strategy": on_this_node(), "max_restarts": -1, "max_task_retries": -1}
    actor, done = ray.remote(SharedProgress).options(**options).remote(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(actor, bar, describe, done))
    watcher.start()
    try:
        yield actor
    finally:
        done.set()
        watcher.join()


def _watch(actor: Any, bar: ProgressBar, describe: Callable[[dict[str, float]], str], done: threading.Event) -> None:
    last = False
    while not last:
        last = done.wait(_INTERVAL_S)
        try:
            items = ray.get(actor.take.remote())
        except RayError:  # the run fails with the actor's node, and ends with its own message
            return
        for item in items:
            if isinstance(item, str):
                say(item)
            elif isinstance(item, dict):
                gauge("epoch", "The last finished epoch.").set(item["epoch"])
                gauge("validation_accuracy", "Of the last epoch, 0 to 1.").set(item["validation_accuracy"])
                gauge("validation_loss", "Of the last epoch.").set(item["validation_loss"])
                say(describe(item))
            else:
                new = max(item, bar.start) - bar.done  # negative after workers restart
                bar.advance(new)
                count_images("train", ok=new)
