"""What a training step costs beside arithmetic: operators, host synchronisations, and calls to the progress actor."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from fer_ray.config.files import load_config
from fer_ray.training.loop import fit
from fer_ray.training.on_ray.shared_progress import ProgressSender
from fer_ray.training.rows import TrainingData

EVERYTHING = ["contrast=0.1", "brightness=0.1", "cutout=0.2", "mixup=0.3", "cutmix=0.5"]
SYNCHRONISES = {"_local_scalar_dense", "lift_fresh", "nonzero", "item", "equal", "is_nonzero"}


class Operators(TorchDispatchMode):
    """Records every operator, in forward and backward passes and in the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("overrides", "most", "precision"),
    [
        (["training.ema=0.9"], 140, "float32"),
        (["training.ema=0.9"], 140, "bfloat16"),
        ([f"augment.{change}" for change in EVERYTHING], 150, "float32"),
    ],
    ids=["recipe", "recipe in bfloat16", "every augmentation"],
)
def test_a_step_is_few_operators(overrides: list[str], most: int, precision: str, tiny_data: TrainingData) -> None:
    rows, ends = tiny_data.train.take(np.arange(24)), list[int]()
    options = ["training.epochs=1", "training.batch_size=8", f"training.precision={precision}", *overrides]
    with Operators() as operators:
        data = TrainingData(rows, rows, tiny_data.info)
        fit(load_config("fast", options), data, lambda *_: None, lambda images: ends.append(len(operators.called)))
    called = operators.called[ends[-2] : ends[-1]]
    assert 50 < len([operator for operator in called if not getattr(operator, "is_view", False)]) <= most
    assert not SYNCHRONISES & {operator._overloadpacket._qualified_op_name.split("::")[1] for operator in called}


def test_progress_is_sent_at_most_twice_a_second() -> None:
    """Ten seconds of steps of 1 ms, an epoch each 0.1 s."""
    now, calls = 0.0, list[tuple[Any, ...]]()
    actor = SimpleNamespace(put=SimpleNamespace(remote=lambda *items: calls.append(items)))
    sender = ProgressSender(actor, epochs=1, rows=2000, workers=2, clock=lambda: now)
    for step in range(1, 10_001):
        now = step / 1000
        sender.add(10)
        if step % 100 == 0:
            sender.finish_epoch({"epoch": 1 + step / 100})
    sender.flush()
    assert len(calls) <= 3 * 10
    images = [images for images, *_ in calls]
    assert images[0] == 2000 and images == sorted(images) and images[-1] == 101 * 2000
    assert [line["epoch"] for _, *epochs in calls for line in epochs] == list(range(2, 102))
