"""Starting Ray."""

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from fer_ray.cluster import connect
from fer_ray.console.interrupts import deferred_interrupt, interrupt_on_sigterm
from fer_ray.errors import UsageError

TIMEOUT = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Make ``ray.init`` raise these, from the last to the first, before it succeeds; nothing is started."""
    waiting = list[Exception]()

    def init(address: str, **options: Any) -> None:
        if waiting:
            raise waiting.pop()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return waiting


def test_a_start_that_took_too_long_is_tried_again(
    failures: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    failures += [Exception(TIMEOUT), Exception(TIMEOUT)]
    connect.start_ray()
    assert not failures
    assert capsys.readouterr().err.count("Ray did not start in time; trying again.") == 2


@pytest.mark.parametrize(("error", "left"), [(ConnectionError("no such cluster"), 3), (Exception(TIMEOUT), 1)])
def test_other_errors_and_a_third_failure_are_raised(failures: list[Exception], error: Exception, left: int) -> None:
    failures += [error] * 4
    with pytest.raises(type(error), match=str(error)[:20]):
        connect.start_ray()
    assert len(failures) == left


@pytest.fixture
def not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests have started it
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_cluster_that_lets_nobody_in(
    failures: list[Exception], not_connected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures += [AuthenticationError("No token was found. More of Ray's words."), ConnectionError("Failed to connect")]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(connect, "_require_answer", lambda address: None)
    with pytest.raises(UsageError, match=r"RAY_ADDRESS=10.0.0.1:6379: Failed .*=token \(now not set\) and put"):
        connect.connect()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UsageError, match=r"^RAY_AUTH_MODE=token: .*was found\. Put the cluster's token into"):
        connect.connect()


def test_an_address_without_a_cluster(not_connected: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"127.0.0.1:{server.getsockname()[1]}"
    wrong = {gone: "nothing answers there", "nonsense": "not the address", "http://127.0.0.1:8265": "not the address"}
    for address, said in wrong.items():  # the last is what `ray job submit` takes
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UsageError, match=f"^RAY_ADDRESS={address}: {said}"):
            connect.connect()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Begin as a shell starts a command in the foreground, and put back what signals do."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def test_sigterm_interrupts_once_ray_has_started(failures: list[Exception], handlers: None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connect.start_ray()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_is_noted_and_the_second_raised(
    number: signal.Signals, handlers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_on_sigterm()
    with deferred_interrupt("Stopping.") as interrupted:
        os.kill(os.getpid(), number)
        assert interrupted.is_set() and "Stopping." in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
