"""One progress bar for several processes: workers put their progress into a queue, which the driver reads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray.exceptions import RayError
from ray.util.queue import Queue

from fer_ray.cluster.connect import on_this_node
from fer_ray.cluster.metrics import count_images, gauge
from fer_ray.console.progress import ProgressBar, say

_INTERVAL_S = 0.5


class ProgressSender:
    """Sends the first worker's progress, at most twice a second: images since the beginning of the run, and metrics.

    The other workers take as many images a step, so the first one counts for all. ``epochs`` is the number of finished
    epochs, ``rows`` the images of an epoch over all workers.
    """

    def __init__(self, queue: Any, epochs: int, rows: int, workers: int, clock: Callable[[], float] = time.monotonic):
        self._queue, self._epochs, self._rows, self._workers, self._clock = queue, epochs, rows, workers, clock
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
        item = self._epochs * self._rows + self._in_epoch, self._unsent
        self._queue.actor.put_nowait.remote(item)  # ``put_nowait`` would wait for the queue's process
        self._unsent, self._sent = [], self._clock()


@contextmanager
def shared_progress(bar: ProgressBar, describe: Callable[[dict[str, float]], str]) -> Iterator[Any]:
    """Yield a queue for a ``ProgressSender``, and for lines of text. The bar shows both until the block ends."""
    options = {"num_cpus": 0, "scheduling_strategy": on_this_node(), "max_restarts": -1, "max_task_retries": -1}
    queue: Any = Queue(actor_options=options)
    watcher = threading.Thread(target=_watch, args=(queue, bar, describe))
    watcher.start()
    try:
        yield queue
    finally:
        queue.actor.put_nowait.remote(None)
        watcher.join()


def _watch(queue: Any, bar: ProgressBar, describe: Callable[[dict[str, float]], str]) -> None:
    with suppress(RayError):  # the run fails with the queue's node, and ends with its own message
        while (item := queue.get()) is not None:
            if isinstance(item, str):
                say(item)
                continue
            images, epochs = item
            new = max(images, bar.start) - bar.done  # negative after workers restart
            bar.advance(new)
            count_images("train", ok=new)
            for metrics in epochs:
                gauge("epoch", "The last finished epoch.").set(metrics["epoch"])
                gauge("validation_accuracy", "Of the last epoch, 0 to 1.").set(metrics["validation_accuracy"])
                gauge("validation_loss", "Of the last epoch.").set(metrics["validation_loss"])
                say(describe(metrics))
