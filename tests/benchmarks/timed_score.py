"""``fer-ray score`` that notes the seconds of the driver's own work.

    python -m timed_score NOTES IMAGES --output OUTPUT

Takes the arguments of the stage behind NOTES, the JSON file to write: for each watched function its calls, its seconds
and the process's CPU seconds in them, and the moments at which the last one began and ended.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from fer_ray.cli import main as fer_ray
from fer_ray.scoring import manifest, on_ray, totals

WATCHED = (
    (manifest, "read_chunks"),
    (on_ray, "finished"),
    (on_ray, "score_parts"),
    (on_ray, "merge"),
    (totals, "count_parts"),
)


def watch(owner: Any, name: str, notes: dict[str, dict[str, float]]) -> None:
    """Note what a module's function takes from now on."""
    plain: Callable[..., Any] = getattr(owner, name)

    @wraps(plain)
    def timed(*arguments: Any, **options: Any) -> Any:
        moment, began, cpu = time.time(), time.perf_counter(), time.process_time()
        try:
            return plain(*arguments, **options)
        finally:
            note = notes.setdefault(name, {"calls": 0, "seconds": 0.0, "cpu_s": 0.0})
            note["calls"] += 1
            note["seconds"] += time.perf_counter() - began
            note["cpu_s"] += time.process_time() - cpu
            note["began"], note["ended"] = moment, time.time()

    setattr(owner, name, timed)


def main() -> None:
    notes: dict[str, dict[str, float]] = {}
    for owner, name in WATCHED:
        watch(owner, name, notes)
    try:
        fer_ray(["score", *sys.argv[2:]])
    finally:
        Path(sys.argv[1]).write_text(json.dumps(notes), encoding="utf-8")


if __name__ == "__main__":
    main()
