"""Where the time of a run goes."""

import re
import time
from collections.abc import Iterator

import pytest
import torch

from fer_ray.training.profile import PHASES, RunProfile, Stopwatch, bottleneck


def test_the_phases_of_an_epoch_add_up_to_its_time_and_to_earlier_epochs() -> None:
    watch = Stopwatch(torch.device("cpu"), {"backward": 100.0})
    began = time.perf_counter()

    def batches() -> Iterator[int]:
        for number in range(5):
            time.sleep(0.02)
            yield number

    for _ in watch.steps(batches()):
        with watch.phase("forward"):
            time.sleep(0.01)
        time.sleep(0.004)
    with watch.span("validation"):
        time.sleep(0.03)
    total = time.perf_counter() - began
    assert sum(watch.seconds.values()) == pytest.approx(100 + total, abs=0.02 * total)
    assert watch.seconds["data"] >= 0.1 and watch.seconds["forward"] >= 0.05
    assert watch.seconds["validation"] >= 0.03 and watch.seconds["other"] >= 0.02


@pytest.mark.parametrize(
    ("seconds", "circumstances", "line"),
    [
        ({"data": 6, "forward": 2, "backward": 2}, {"mapped": True}, r"data \(60%\).*more memory"),
        ({"data": 4, "forward": 3, "backward": 3}, {}, r"forward and backward \(60%\).*smaller.* or a GPU"),
        ({"forward": 3, "backward": 3}, {"device": "cuda", "fast_bfloat16": True}, r"with bfloat16 .* or more GPUs"),
        ({"validation": 9, "forward": 1}, {}, r"validation \(90%\)\. Faster with a smaller validation split"),
    ],
)
def test_the_line_names_the_bottleneck_and_a_remedy(
    seconds: dict[str, float], circumstances: dict[str, object], line: str
) -> None:
    plain = {"device": "cpu", "precision": "float32", "workers": 1, "mapped": False, "seconds": seconds}
    profile = RunProfile.model_validate(plain | circumstances)
    assert re.search(line, bottleneck(profile, can_grow=True))
    assert list(profile.shares()) == list(PHASES) and sum(profile.shares().values()) == pytest.approx(1)
