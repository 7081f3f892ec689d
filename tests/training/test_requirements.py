"""What is refused before training starts."""

from pathlib import Path

import pytest

from fer_ray.config.files import load_config
from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.training.requirements import batch_note, training_problems


def info(size: int) -> DatasetInfo:
    train = SplitInfo(rows=70, labels=dict.fromkeys(EMOTIONS, 10))
    told = dict.fromkeys(("fer_ray_version", "source", "source_format", "fingerprint"), "")
    return DatasetInfo.model_validate(told | {"size": size, "splits": {"train": train}, "mean": 0.5, "std": 0.25})


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
