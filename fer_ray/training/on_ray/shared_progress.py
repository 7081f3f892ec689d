"""One progress bar for several processes. Its actor imports only this module, so it starts without PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from fer_ray.cluster.connect import on_this_node
from fer_ray.cluster.metrics import Throughput, gauge
from fer_ray.console.progress import ProgressBar, say


def show_epoch(metrics: dict[str, float]) -> None:
    """Set the gauges to an epoch's metrics, as ``fit`` reports them."""
    gauge("epoch", "The last finished epoch.").set(metrics["epoch"])
    gauge("validation_accuracy", "Of the last epoch, 0 to 1.").set(metrics["validation_accuracy"])
    gauge("validation_loss", "Of the last epoch.").set(metrics["validation_loss"])


class SharedProgress:
    """Collects images, lines and metrics from all workers."""

    def __init__(self) -> None:
        self.images, self.lines, self.epochs = 0, list[str](), list[dict[str, float]]()

    def start_at(self, images: int) -> None:
        self.images = images

    def add(self, images: int) -> None:
        self.images += images

    def say(self, line: str) -> None:
        self.lines.append(line)

    def epoch(self, metrics: dict[str, float]) -> None:
        self.epochs.append(metrics)

    def take(self) -> tuple[int, list[str], list[dict[str, float]]]:
        """Return the images since the beginning of the run, and the lines and epochs since the last call."""
        lines, self.lines = self.lines, []
        epochs, self.epochs = self.epochs, []
        return self.images, lines, epochs


@contextmanager
def shared_progress(bar: ProgressBar) -> Iterator[Any]:
    """Yield the handle of a ``SharedProgress`` actor. The bar shows its images and lines until the block ends."""
    options = {"num_cpus": 0, "scheduling_strategy": on_this_node(), "max_restarts": -1, "max_task_retries": -1}
    progress = ray.remote(SharedProgress).options(**options).remote()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(progress, bar, done))
    watcher.start()
    try:
        yield progress
    finally:
        done.set()
        watcher.join()


def _watch(progress: Any, bar: ProgressBar, done: threading.Event) -> None:
    with Throughput("train") as throughput:
        while True:
            last = done.wait(0.5)
            try:
                images, lines, epochs = ray.get(progress.take.remote())
            except RayError:  # the run fails with the actor's node, and ends with its own message
                return
            new = max(images, bar.start) - bar.done  # negative after workers restart
            bar.advance(new)
            throughput.add(new)
            for metrics in epochs:
                show_epoch(metrics)
            for line in lines:
                say(line)
            if last:
                return
