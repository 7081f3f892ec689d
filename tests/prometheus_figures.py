"""Read the figures at Ray's port of metrics."""

import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 60


def scraped(name: str, *labels: str) -> Counter[Any]:
    """Return a metric's values by the given labels, summed over those that Ray adds."""
    (port,) = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        families = text_string_to_metric_families(page.read().decode())
    values = Counter[Any]()
    for sample in (sample for family in families for sample in family.samples if sample.name == name):
        key = tuple(sample.labels[label] for label in labels)
        values[key[0] if len(key) == 1 else key] += sample.value
    return values


def wait_for(look: Callable[[], object], expected: object) -> None:
    """Wait until what is sent every second has arrived; then it stays so."""
    end = time.monotonic() + PATIENCE_S
    while (found := look()) != expected and time.monotonic() < end:
        time.sleep(0.2)
    assert found == expected
