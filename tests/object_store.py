"""An S3 server for tests, which can refuse and delay requests as real ones do under load."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pyarrow import fs

from fer_ray.storage import object_store

BUCKET = "faces"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Faults:
    """How many requests the server refuses or delays."""

    busy_every: int = 0  # one of so many requests is answered by 503; 0 for none
    slow_every: int = 0  # one of so many requests is delayed; 0 for none
    writes_left: int | None = None  # requests that change something before all of them are denied; None for no limit
    answered: Counter[str] = field(default_factory=Counter)  # requests, by busy (refused), slow (delayed) and well
    _requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return an application that adds these faults to the given one."""

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            with self._lock:
                self._requests += 1
                number = self._requests
                if self.writes_left is not None and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                    if not self.writes_left:
                        start_response("403 Forbidden", [("Content-Type", "application/xml")])
                        return [_DENIED]
                    self.writes_left -= 1
            if self.busy_every and number % self.busy_every == 0:
                self.answered["busy"] += 1
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [_BUSY]
            if self.slow_every and number % self.slow_every == 0:
                self.answered["slow"] += 1
                time.sleep(0.5)
            self.answered["well"] += 1
            return app(environ, start_response)

        return answer


@dataclass(frozen=True)
class Store:
    """A running server."""

    endpoint: str  # its URL
    filesystem: fs.FileSystem  # reads and writes without the faults
    faults: Faults  # may be changed while the server runs

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        with self.filesystem.open_output_stream(f"{BUCKET}/{key}") as stream:
            stream.write(content)

    def get(self, key: str) -> bytes:
        """Return an object's content."""
        with self.filesystem.open_input_file(f"{BUCKET}/{key}") as stream:
            content: bytes = stream.read()
        return content

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the objects below a prefix, without it."""
        selector = fs.FileSelector(f"{BUCKET}/{prefix}", recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        start = len(f"{BUCKET}/{prefix}/")
        return sorted(info.path[start:] for info in found if info.type == fs.FileType.File)


@contextmanager
def running_store() -> Iterator[Store]:
    """Start a server with an empty bucket and set the environment variables for S3 clients.

    Skips the test if moto isn't installed.
    """
    pytest.importorskip("moto.server", reason="moto, an S3 server for tests, is not installed")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    faults = Faults()
    app = DomainDispatcherApplication(create_backend_app)
    servers = [make_server("127.0.0.1", 0, one, threaded=True) for one in (app, faults.around(app))]
    for server in servers:
        server.log_startup = lambda: None  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
    plain, faulty = (f"http://127.0.0.1:{server.port}" for server in servers)
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": faulty,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        filesystem = fs.S3FileSystem(
            endpoint_override=plain, region="us-east-1", allow_bucket_creation=True, allow_bucket_deletion=True
        )
        filesystem.create_dir(BUCKET)
        object_store._open.cache_clear()  # filesystems opened with another environment
        yield Store(faulty, filesystem, faults)
    object_store._open.cache_clear()
    for server in servers:
        server.shutdown()
