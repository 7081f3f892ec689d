"""Metrics of the stages that run on Ray, which Prometheus scrapes with Ray's own; ``cluster/README.md`` lists them.

The process must be connected to Ray, which collects the metrics every few seconds. A call costs microseconds.
"""

import functools

from ray.util.metrics import Counter, Gauge


def count_images(stage: str, **by_status: int) -> None:
    """Count images of a stage by their status."""
    for status, images in by_status.items():
        if images > 0:
            counter("images", "Images.", "stage", "status").inc(images, {"stage": stage, "status": status})


def count_failure(stage: str, kind: str) -> None:
    """Count the failure of a trial or worker; ``kind`` is that of ``fer_ray.cluster.failures.Failure``."""
    counter("failures", "Trials and workers that failed.", "stage", "kind").inc(1, {"stage": stage, "kind": kind})


@functools.cache
def counter(name: str, what: str, *tags: str) -> Counter:
    """Return Ray's counter ``fer_ray_NAME_total``."""
    return Counter(f"fer_ray_{name}_total", what, tags)


@functools.cache
def gauge(name: str, what: str, *tags: str) -> Gauge:
    """Return Ray's gauge ``fer_ray_NAME``."""
    return Gauge(f"fer_ray_{name}", what, tags)
