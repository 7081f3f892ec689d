"""What a user is told of trials that ran out of memory, and of others."""

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from fer_ray.cluster import failures
from fer_ray.cluster.failures import Failure, FailureReader


def test_out_of_memory_says_what_to_change() -> None:
    error = OutOfMemoryError("Task was killed due to the node running low on memory.\nMore lines")
    failure = FailureReader(2).read(error)
    assert failure.kind == "out_of_memory" and "Lower training.batch_size" in failure.text
    assert "(--max-concurrent, now 2)." in failure.text and "\n" not in failure.text
    assert "--max-concurrent" not in FailureReader(1).read(error).text
    assert "(--gpus-per-trial, now 0.25)" in FailureReader(2, 0.25).read(error).text
    assert FailureReader(2).read(ValueError("wrong\nlines")) == Failure("wrong\nlines", "error")


def test_the_kernel_is_asked_whether_it_killed_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([3, 3, 4, 4])
    monkeypatch.setattr(failures, "killed_for_memory", lambda: next(counts))
    reader = FailureReader(1)
    lost, killed = reader.read(ActorDiedError()), reader.read(ActorDiedError())
    assert lost == Failure(f"its process or node was lost\n{ActorDiedError()}", "lost")
    assert killed.text.startswith("out of memory: The actor died") and killed.kind == "out_of_memory"
    assert reader.read(ActorDiedError()) == lost
