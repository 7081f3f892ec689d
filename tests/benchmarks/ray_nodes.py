"""A Ray cluster of several nodes on this machine, whose nodes can be lost as machines are.

    with running_nodes(head_cpus=0) as nodes:
        lost = nodes.add(cpus=1)
        driver = nodes.driver("fer_ray.tune", "--dataset", ...)
        nodes.lose(lost)  # every process on it is killed at once
        driver.wait()

Each node has a loopback address of its own (127.0.0.2, 127.0.0.3 and so on, which Linux accepts by default), so that
Ray treats them as different machines. Its ports, files and token are not those of any other Ray on this machine. No
process of the cluster outlives the ``with``.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[2]
RAY = [sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())"]
START_S = 120
STARTS = 3  # Ray gives a node 30 s to start, which is too little on a busy machine
STARTED = "Ray runtime started."


@dataclass(eq=False)
class Node:
    """A node of the cluster: its address, its ``ray start``, the parent of all its processes, and the log of that."""

    ip: str
    process: subprocess.Popen[bytes]
    log: Path


class Nodes:
    """A running cluster; made by ``running_nodes``.

    Attributes:
        folder: Ray's, with its logs.
        environment: of a process that is to join the cluster.
        head: the node with the port that others join by.
        workers: the other nodes that were not lost, in the order in which they joined.
    """

    def __init__(self, folder: Path, environment: dict[str, str], head_cpus: int):
        self.folder, self.environment, self._head_cpus = folder, environment, head_cpus
        self.workers, self._drivers, self._count = list[Node](), list[subprocess.Popen[bytes]](), 1
        self._ports = {name: free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
        self.address = f"127.0.0.2:{self._ports['port']}"
        self.dashboard = f"http://127.0.0.1:{self._ports['dashboard-port']}"
        (folder / "token").write_text(secrets.token_hex(32))
        (folder / "token").chmod(0o600)

    def start_head(self) -> None:
        """Start the head, and wait for its dashboard."""
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        self.head = self._start(["--head", "--dashboard-host=127.0.0.1", *ports], self._head_cpus, "127.0.0.2")
        self.environment["RAY_ADDRESS"] = self.address
        wait_for_answer(f"{self.dashboard}/api/version")

    def add(self, cpus: int = 1) -> Node:
        """Start another node, and return it after it has joined."""
        node = self._start([f"--address={self.address}", "--num-gpus=0"], cpus)
        self.workers.append(node)
        return node

    def lose(self, node: Node) -> None:
        """Kill every process of a node at once, as if its machine were gone."""
        kill_tree(node.process)
        if node in self.workers:
            self.workers.remove(node)

    def restart_head(self) -> None:
        """Lose all nodes, and start a new head at the same ports."""
        for node in [*self.workers, self.head]:
            self.lose(node)
        self.start_head()

    def driver(self, module: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start ``python -m MODULE`` on the head's machine, with options of ``subprocess.Popen``."""
        return self._run([sys.executable, "-m", module], arguments, options)

    def submit(self, module: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start ``ray job submit -- python -m MODULE``, which prints the job's output and exits with 0 or 1.

        The job runs in the repository instead of an uploaded copy.
        """
        submit = [*RAY, "job", "submit", "--address", self.dashboard, "--", "env", f"PYTHONPATH={REPOSITORY}"]
        return self._run([*submit, sys.executable, "-m", module], arguments, options)

    def close(self) -> None:
        """Kill everything that still runs."""
        for process in [*self._drivers, *(node.process for node in self.workers)]:
            kill_tree(process)
        if hasattr(self, "head"):
            kill_tree(self.head.process)

    def _run(self, command: list[str], arguments: tuple[object, ...], options: dict[str, Any]) -> Any:
        options = {"cwd": REPOSITORY, "env": self.environment} | options
        self._drivers.append(subprocess.Popen([*command, *map(str, arguments)], **options))
        return self._drivers[-1]

    def _start(self, options: list[str], cpus: int, ip: str = "") -> Node:
        """Start a node; Ray's own time limit makes a start fail on a busy machine, so try several times."""
        for _ in range(STARTS):
            node = self._try_to_start(options, cpus, ip)
            if node.process.poll() is None:
                return node
        raise RuntimeError(f"node {node.ip} did not start:\n{node.log.read_text()}")

    def _try_to_start(self, options: list[str], cpus: int, ip: str) -> Node:
        """Return a node that has joined or ended."""
        self._count += 1
        ip, log = ip or f"127.0.0.{self._count}", self.folder / f"start-{self._count}.log"
        options = [*options, f"--node-ip-address={ip}", f"--num-cpus={cpus}", f"--temp-dir={self.folder}", "--block"]
        options += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*RAY, "start", "--disable-usage-stats", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"},
                start_new_session=True,  # Ctrl-C at a terminal does not reach it
            )
        deadline = time.monotonic() + START_S
        try:
            while STARTED not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            if STARTED not in log.read_text():
                kill_tree(process)
        return Node(ip, process, log)


@contextmanager
def running_nodes(head_cpus: int = 0) -> Iterator[Nodes]:
    """Start a cluster of one node, the head, with token authentication; kill all of it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the path of a socket is limited to 107 bytes
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_worker_niceness": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # each node would count all memory in use on this machine as its own
        "FER_RAY_CACHE": str(folder / "copies"),
        "RAY_TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    nodes = Nodes(folder, environment, head_cpus)
    try:
        nodes.start_head()
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder, ignore_errors=True)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all its descendants at once: they are suspended first, so none reacts to another's death."""
    if process.poll() is not None:  # its id may be another process's by now
        return
    met = set[psutil.Process]()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        while new := {root, *root.children(recursive=True)} - met:
            met |= new
            for one in new:
                with suppress(psutil.NoSuchProcess):
                    one.suspend()
    for one in met:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def wait_for_answer(url: str) -> None:
    """Wait until an HTTP server answers, even if it asks for a token."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer")
