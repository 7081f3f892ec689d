"""Starting Ray, and what its nodes see: paths below /proc/self are others in another process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from fer_ray.cluster import connect
from fer_ray.cluster.node_checks import _compare, external_paths
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.console.interrupts import deferred_interrupt, interrupt_on_sigterm
from fer_ray.errors import UsageError

TIMEOUT = Exception("The current node timed out during startup. This could happen because some raylet failed.")
CONNECTION = ConnectionError("no such cluster")


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


@pytest.mark.parametrize(
    ("errors", "left"), [([TIMEOUT] * 2, None), ([TIMEOUT] * 4, 1), ([CONNECTION] * 4, 3)], ids=["2", "4", "other"]
)
def test_only_a_start_that_took_too_long_is_tried_again_and_only_twice(
    errors: list[Exception], left: int | None, failures: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    failures += errors
    with pytest.raises(type(errors[0]), match=str(errors[0])[:20]) if left else contextlib.nullcontext():
        connect.start_ray()
    assert len(failures) == (left or 0)
    assert capsys.readouterr().err.count("trying again") == (0 if errors[0] is CONNECTION else 2)


@pytest.fixture
def not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests have started it
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_closed_cluster(failures: list[Exception], not_connected: None, monkeypatch: pytest.MonkeyPatch) -> None:
    failures += [AuthenticationError("No token was found. More of Ray's words."), ConnectionError("Failed to connect")]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(connect, "_require_answer", lambda address: None)
    with pytest.raises(UsageError, match=r"RAY_ADDRESS=10.0.0.1:6379: Failed .*=token \(now not set\) and put"):
        connect.connect()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UsageError, match=r"^RAY_AUTH_MODE=token: .*was found\. Put the cluster's token into"):
        connect.connect()


LEFT_WHILE_ITERATING = """
import sys, threading, time, ray
from fer_ray.cluster.connect import connect
connect()
batches = iter(ray.data.range(8, override_num_blocks=8).iter_batches(batch_size=None, prefetch_batches=0))
next(batches)
(name,) = {thread.name for thread in threading.enumerate()} & {"iter_threaded"}
see = lambda: (time.sleep(1), print(ray.is_initialized(), flush=True))
threading.Thread(name=name, daemon=True, target=see).start()
sys.exit(3)
"""


@pytest.mark.slow
def test_ray_stays_until_the_threads_of_ray_data_have_ended() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", LEFT_WHILE_ITERATING]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, ran.stdout) == (3, "True\n"), ran.stderr


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
def test_first_and_second_interrupt(number: signal.Signals, handlers: None, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt_on_sigterm()
    with deferred_interrupt("Stopping.") as interrupted:
        os.kill(os.getpid(), number)
        assert interrupted.is_set() and "Stopping." in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_a_node_does_not_see_is_told(ray_cluster: None, tmp_path: Path) -> None:
    node = {ray.get_runtime_context().get_node_id(): "10.0.0.2"}
    (tmp_path / "file").write_text("same")
    _compare(dict.fromkeys([str(tmp_path), str(tmp_path / "file"), str(tmp_path / "absent*")], ""), node)
    with (tmp_path / "file").open() as file:
        os.dup2(file.fileno(), 987)
    try:
        paths = {str(tmp_path): "", "/proc/self/fd/987": "/data/run", "/proc/self/cmdline": "/proc/self/cmdline"}
        with pytest.raises(UsageError) as failure:
            _compare(paths, node)
    finally:
        os.close(987)
    absent, other = failure.value.problems
    assert absent.startswith("/data/run: missing on node 10.0.0.2. Put it on storage that all nodes have")
    assert other.startswith("/proc/self/cmdline: different on node 10.0.0.2.")


def test_a_node_that_does_not_answer_is_named(ray_cluster: None, capfd: pytest.CaptureFixture[str]) -> None:
    _compare({"/": "/"}, {"e" * 56: "10.0.0.3"})
    assert "Node 10.0.0.3 doesn't answer" in capfd.readouterr().err


def test_places_that_a_configuration_names() -> None:
    assert external_paths(Config()) == []
    named = ["loss.teachers=[runs/a, s3://b/c]", "model.pretrained=weights.pt", "model.name=resnet18"]
    assert external_paths(load_config(None, named)) == ["runs/a", "s3://b/c", "weights.pt"]
    assert external_paths(load_config(None, ["model.name=resnet18", "model.pretrained=imagenet"])) == []
