"""What is refused before training starts, and where the time of a run goes."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets_made import dataset_info

from fer_ray.config.files import load_config
from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.training.profile import PHASES, RunProfile, Stopwatch, bottleneck
from fer_ray.training.requirements import batch_note, training_problems


def info(size: int) -> DatasetInfo:
    train = SplitInfo(rows=70, labels=dict.fromkeys(EMOTIONS, 10))
    return dataset_info({"train": train}, size=size, fingerprint="f")


def test_images_too_small_for_a_network_are_refused() -> None:
    (problem,) = training_problems(load_config("lenet"), info(8), workers=1)
    assert problem.startswith("model.name = 'lenet': needs larger images than 8 × 8 pixels")


def test_all_problems_are_returned_at_once(tmp_path: Path) -> None:
    overrides = ["loss.soft_labels=true", f"loss.teachers=[{tmp_path}/a]", f"model.pretrained={tmp_path}/b"]
    problems = training_problems(load_config("cnn3", overrides), info(48), workers=40)
    assert [problem.split(":")[0].split(" =")[0] for problem in problems] == [
        "70 training images for 40 workers",
        "training.accumulate",
        "model.pretrained",
        "loss.soft_labels",
        "loss.teachers",
    ]
    assert len(training_problems(load_config("cnn3", overrides), info(48), workers=40, read=False)) == 3


@pytest.mark.parametrize(
    ("workers", "accumulate", "on_gpu", "why"),
    [
        (1, 1, True, None),
        (4, 1, True, "32 images at once: a GPU"),
        (2, 3, False, "21.3333 images at once: batch norm"),
        (8, 1, True, "16 images at once: batch norm"),
    ],
)
def test_small_parts_of_a_batch_are_noted(workers: int, accumulate: int, on_gpu: bool, why: str | None) -> None:
    settings = ["training.batch_size=128", f"training.accumulate={accumulate}"]
    note = batch_note(load_config("cnn3", settings), workers, on_gpu)
    assert note is None if why is None else why in str(note)


def test_a_compiled_network_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (problem,) = training_problems(load_config("cnn3", ["training.compile=true"]), info(48), workers=1)
    assert problem.startswith("training.compile = True: needs a C++ compiler, and no-such-compiler is not here.")


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
def test_the_bottleneck_and_its_remedy(seconds: dict[str, float], circumstances: dict[str, object], line: str) -> None:
    plain = {"device": "cpu", "precision": "float32", "workers": 1, "mapped": False, "seconds": seconds}
    profile = RunProfile.model_validate(plain | circumstances)
    assert re.search(line, bottleneck(profile, can_grow=True))
    assert list(profile.shares()) == list(PHASES) and sum(profile.shares().values()) == pytest.approx(1)
