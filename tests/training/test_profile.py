"""Where the time of a run goes."""

import re
import time

import pytest
import torch

from fer_ray.training.profile import PHASES, Phase, RunProfile, Stopwatch, bottleneck


def profile(device: str = "cpu", streamed: bool = False, **seconds: float) -> RunProfile:
    return RunProfile.model_validate(
        {"device": device, "precision": "bfloat16", "workers": 1, "streamed": streamed, "seconds": seconds}
    )


def test_the_parts_of_an_epoch_add_up_to_its_time() -> None:
    watch = Stopwatch(torch.device("cpu"))
    began = time.perf_counter()

    def batches():  # type: ignore[no-untyped-def]
        for number in range(5):
            time.sleep(0.02)
            yield number

    seen = []
    for batch in watch.steps(batches()):
        with watch.phase("forward"):
            time.sleep(0.01)
        time.sleep(0.004)
        seen.append(batch)
    with watch.span("validation"):
        time.sleep(0.03)
    total = time.perf_counter() - began
    assert seen == [0, 1, 2, 3, 4]
    assert sum(watch.seconds.values()) == pytest.approx(total, rel=0.02)
    assert watch.seconds["data"] >= 0.1 and watch.seconds["forward"] >= 0.05
    assert watch.seconds["validation"] >= 0.03 and watch.seconds["other"] >= 0.02


def test_a_resumed_run_goes_on_adding() -> None:
    watch = Stopwatch(torch.device("cpu"), {"backward": 100.0})
    for _ in watch.steps([1]):
        with watch.phase("backward"):
            pass
    assert 100 < watch.seconds["backward"] < 101


def test_shares_are_of_the_whole_and_in_order() -> None:
    shares = profile(forward=30, backward=60, data=10).shares()
    assert list(shares) == list(PHASES)
    assert shares["backward"] == 0.6 and sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "streamed", "device", "said"),
    [
        ({"data": 6, "forward": 2, "backward": 2}, True, "cpu", r"data \(60%\).*larger --data-memory"),
        ({"data": 6, "forward": 2, "backward": 2}, False, "cpu", r"data \(60%\).*larger batches"),
        ({"data": 4, "forward": 3, "backward": 3}, False, "cpu", r"forward and backward \(60%\).*a GPU"),
        (
            {"data": 4, "forward": 3, "backward": 3},
            False,
            "cuda",
            r"forward and backward \(60%\).*more GPUs",
        ),
        ({"validation": 9, "forward": 1}, False, "cpu", r"validation \(90%\).*smaller validation split"),
    ],
)
def test_the_line_names_the_bottleneck_and_a_remedy(
    seconds: dict[Phase, float], streamed: bool, device: str, said: str
) -> None:
    assert re.search(said, bottleneck(profile(device, streamed, **seconds), can_grow=True))
