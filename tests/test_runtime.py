"""Starting Ray."""

from typing import Any

import pytest
import ray

from fer_ray import runtime

TIMEOUT = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Make ``ray.init`` raise these, from the last to the first, before it succeeds; nothing is started."""
    waiting = list[Exception]()

    def init(**options: Any) -> None:
        if waiting:
            raise waiting.pop()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return waiting


def test_a_start_that_took_too_long_is_tried_again(
    failures: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    failures += [Exception(TIMEOUT), Exception(TIMEOUT)]
    runtime.start_ray()
    assert not failures
    assert capsys.readouterr().err.count("Ray did not start in time; trying again.") == 2


@pytest.mark.parametrize(("error", "left"), [(ConnectionError("no such cluster"), 3), (Exception(TIMEOUT), 1)])
def test_other_errors_and_a_third_failure_are_raised(failures: list[Exception], error: Exception, left: int) -> None:
    failures += [error] * 4
    with pytest.raises(type(error), match=str(error)[:20]):
        runtime.start_ray()
    assert len(failures) == left
