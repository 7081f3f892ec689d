"""Metrics of the stages that run on Ray. Prometheus scrapes them with Ray's own; there, ``ray_`` precedes the names.

===============================  =======  =============================================================================
metric                           kind     what
===============================  =======  =============================================================================
``fer_ray_images_total``         counter  images by ``stage`` (``prepare``, ``train``, ``tune``, ``score``) and
                                          ``status``: the row's in scoring, ``ok`` or ``rejected`` in preparing, ``ok``
                                          in training, where an image counts once an epoch
``fer_ray_failures_total``       counter  trials and workers that failed, by ``stage`` and ``kind``: ``out_of_memory``,
                                          ``lost`` (process or node), ``error``
``fer_ray_trials_total``         counter  ended trials by ``state``: ``COMPLETE``, ``PRUNED``, ``FAIL``, and
                                          ``INTERRUPTED``, to be resumed
``fer_ray_trials_running``       gauge    running trials
``fer_ray_best_value``           gauge    best value so far of a search's first ``objective``
``fer_ray_epoch``                gauge    last finished epoch of training through Ray Train
``fer_ray_validation_accuracy``  gauge    its accuracy, 0 to 1
``fer_ray_validation_loss``      gauge    its loss
===============================  =======  =============================================================================

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
