"""A Ray cluster of several nodes on this machine, whose nodes can be lost as machines are.

    with running_nodes(head_cpus=0) as nodes:
        lost = nodes.add(cpus=1)
        driver = nodes.driver("fer_ray.tune", "--dataset", ...)
        nodes.lose(lost)  # every process on it is killed at once
        driver.wait()

Each node has a loopback address of its own (127.0.0.2, 127.0.0.3 and so on, which Linux needs no setting for), so that
Ray takes them for different machines. Its ports, its files and the token that it asks for are of no other Ray on this
machine. No process of it outlives the ``with``, whatever happens in there.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[1]
RAY = [sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())"]
START_S = 120
STARTS = 3  # Ray gives a node 30 s, which is too little on a busy machine
STARTED = "Ray runtime started."


@dataclass(eq=False)
class Node:
    """A node of the cluster.

    Attributes:
        ip: its address.
        process: ``ray start``, from which all others on it descend.
        log: what that says.
    """

    ip: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None


@dataclass
class Nodes:
    """A running cluster; made by ``running_nodes``.

    Attributes:
        folder: Ray's, with what it logs.
        environment: with which a process can join it.
        head: the node with the port that others join by.
        workers: the other nodes that were not lost, in the order in which they joined.
    """

    folder: Path
    environment: dict[str, str]
    head_cpus: int
    head: Node = field(init=False)
    workers: list[Node] = field(default_factory=list)
    _drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _count: int = 1

    def __post_init__(self) -> None:
        self._ports = {name: free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
        (self.folder / "token").write_text(secrets.token_hex(32))
        (self.folder / "token").chmod(0o600)
        self._start_head()

    @property
    def address(self) -> str:
        """What ``RAY_ADDRESS`` is to be."""
        return f"127.0.0.2:{self._ports['port']}"

    @property
    def dashboard(self) -> str:
        """The URL that ``ray job submit --address`` takes."""
        return f"http://127.0.0.1:{self._ports['dashboard-port']}"

    def add(self, cpus: int = 1, gpus: int = 0) -> Node:
        """Start another node, and return it when it has joined."""
        node = self._start([f"--address={self.address}", f"--num-gpus={gpus}"], cpus)
        self.workers.append(node)
        return node

    def lose(self, node: Node) -> None:
        """Kill every process of a node at once, as if its machine were gone."""
        kill_tree(node.process)
        if node in self.workers:
            self.workers.remove(node)

    def restart_head(self) -> None:
        """Lose all nodes, and start the head again at the same ports; it knows nothing of before."""
        for node in [*self.workers, self.head]:
            self.lose(node)
        self._start_head()

    def driver(self, module: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start ``python -m MODULE`` as a driver on the head's machine; it is killed in the end where it still runs.

        Args:
            options: of ``subprocess.Popen``.
        """
        return self._run([sys.executable, "-m", module], arguments, options)

    def submit(self, module: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start ``ray job submit -- python -m MODULE``, which shows the job's output and exits as it does, by 0 or 1.

        The job runs in the repository, not in an uploaded copy of it.

        Args:
            options: of ``subprocess.Popen``.
        """
        job = ["job", "submit", "--address", self.dashboard, "--", "env", f"PYTHONPATH={REPOSITORY}"]
        return self._run([*RAY, *job, sys.executable, "-m", module], arguments, options)

    def job_output(self, options: list[str], script: Path) -> str:
        """Run a script as a job with options of ``ray job submit``; return what it printed."""
        job = ["job", "submit", "--address", self.dashboard, *options, "--", "env", f"PYTHONPATH={REPOSITORY}"]
        command = [*RAY, *job, sys.executable, str(script)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300).stdout

    def close(self) -> None:
        """Kill all that runs still."""
        for process in self._drivers:
            kill_tree(process)
        for node in [*self.workers, *([self.head] if "head" in self.__dict__ else [])]:
            self.lose(node)

    def _run(self, command: list[str], arguments: tuple[object, ...], options: dict[str, Any]) -> Any:
        process = subprocess.Popen(
            [*command, *map(str, arguments)], **{"cwd": REPOSITORY, "env": self.environment} | options
        )
        self._drivers.append(process)
        return process

    def _start_head(self) -> None:
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        self.head = self._start(["--head", "--dashboard-host=127.0.0.1", *ports], self.head_cpus, "127.0.0.2")
        self.environment |= {"RAY_ADDRESS": self.address}
        wait_for_answer(f"{self.dashboard}/api/version")

    def _start(self, options: list[str], cpus: int, ip: str = "") -> Node:
        for attempt in range(1, STARTS + 1):
            node = self._try_to_start(options, cpus, ip)
            if node.runs:
                return node
            if attempt == STARTS:
                raise RuntimeError(f"node {node.ip} did not start:\n{node.log.read_text()}")
        raise AssertionError("the last try returns or raises")

    def _try_to_start(self, options: list[str], cpus: int, ip: str) -> Node:
        """Return a node that has joined, or else ended."""
        self._count += 1
        ip, log = ip or f"127.0.0.{self._count}", self.folder / f"start-{self._count}.log"
        options = [*options, f"--node-ip-address={ip}", f"--num-cpus={cpus}", f"--temp-dir={self.folder}", "--block"]
        options += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*RAY, "start", "--disable-usage-stats", *options],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that Ctrl-C at a terminal doesn't reach it
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
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: a socket's path may have 107 bytes
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_worker_niceness": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # each node would take all that runs on this machine for its own
        "FER_RAY_CACHE": str(folder / "copies"),
        "RAY_TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    nodes = None
    try:
        nodes = Nodes(folder, environment, head_cpus)
        yield nodes
    finally:
        if nodes:
            nodes.close()
        shutil.rmtree(folder, ignore_errors=True)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that descend from it, at once: none sees another one die and does something about it."""
    if process.poll() is not None:  # its id may be another process's by now
        return
    met = set[psutil.Process]()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        while new := {root, *root.children(recursive=True)} - met:
            met |= new
            for one in new:
                with suppress(psutil.NoSuchProcess):
                    one.suspend()  # so that it starts no others meanwhile
    for one in met:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def wait_for_answer(url: str) -> None:
    """Wait until an HTTP server answers, be it that it asks for a token."""
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
