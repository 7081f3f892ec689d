"""Object stores by URL, ``s3://bucket/key`` and ``gs://bucket/key``, through pyarrow's filesystems.

Credentials come from environment variables, profiles and roles, as for the stores' own tools. ``AWS_ENDPOINT_URL``
names a server other than Amazon's. ``AWS_REGION`` names the region; by default it is looked up for the bucket.
"""

import functools
import io
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pyarrow import fs

from fer_ray.console.messages import holds_secret
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.storage.local import local_path, split_url

CONNECT_S = 10.0


def require_answer(setting: str, host: str, port: int, kind: type[FerRayError], remedy: str) -> None:
    """Check that a server listens at a TCP port, else raise an error of class ``kind`` that begins with ``setting``."""
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise kind(f"{setting}: nothing answers there: {error.strerror or error}. {remedy}") from error


REQUESTS_AT_ONCE = 24  # parallel requests of one process; pyarrow keeps 25 connections to a store
_REQUEST_S = 60.0
_ATTEMPTS = 10  # with growing pauses, about a minute in total: a store under load answers 503 for a while
_READS, _PAUSE_S = 5, 0.1
T = TypeVar("T")


def as_url(path_or_url: Path | str) -> str | None:
    """Return the URL that a text or a ``Path`` of a URL names, or None for a local path.

    ``UsageError`` if the URL is of an unknown kind, has no bucket, has an empty part, or contains a secret.
    """
    parts = split_url(path_or_url)
    if not parts:
        return None
    scheme, rest = parts
    if scheme not in ("s3", "gs"):
        raise UsageError(f"{path_or_url}: unknown kind of URL. Give a path, or a URL that begins with s3:// or gs://.")
    url = f"{scheme}://{rest}"
    if "@" in rest.split("/")[0] or holds_secret(url):
        raise UsageError(
            f"{url}: a URL may contain no key, password or signature, as URLs are printed and stored. Give them by"
            " environment variables (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS), a"
            " profile or a role."
        )
    if not rest.split("/")[0]:
        raise UsageError(f"{path_or_url}: has no bucket. Write {scheme}://BUCKET/KEY.")
    if "//" in rest:
        raise UsageError(f"{url}: has an empty part between two slashes. Write one slash.")
    return url


def absolute(path_or_url: Path | str) -> str:
    """Return a URL as it is and a path as an absolute path; raises as ``as_url``."""
    return as_url(path_or_url) or str(local_path(path_or_url))


def locate(url: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of a URL, and ``bucket/key`` in it; ``DataError`` if the object store can't be reached."""
    scheme, _, path = url.partition("://")
    return _open(scheme, path.split("/")[0]), path.rstrip("/")


@functools.cache
def _open(scheme: str, bucket: str) -> fs.FileSystem:
    if scheme == "gs":
        return fs.GcsFileSystem()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    server_scheme, _, server = endpoint.rpartition("://")
    if server:
        parts = urlsplit(endpoint)
        port = parts.port or (80 if parts.scheme == "http" else 443)
        remedy = "Start that server or correct the variable; without it, Amazon's S3 is used."
        require_answer(f"AWS_ENDPOINT_URL={endpoint}", parts.hostname or "", port, DataError, remedy)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError as error:
            raise DataError(f"s3://{bucket}: {error}. Check its name and the network, or set AWS_REGION.") from error
    return fs.S3FileSystem(
        region=region,
        endpoint_override=server or None,
        scheme=server_scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def require_apart(output: Path | str, inputs: Iterable[Path | str]) -> None:
    """Raise a ``UsageError`` that names all inputs in which an output lies; links and ``..`` are resolved."""

    def resolved(path_or_url: Path | str) -> str:
        return (as_url(path_or_url) or os.path.realpath(local_path(path_or_url))).rstrip("/") + "/"

    around = [one for one in inputs if resolved(output).startswith(resolved(one))]
    if around:
        problem = "the output is inside the input"
        raise UsageError([f"{output}: {problem} {one}. Choose an output outside of it." for one in around])


def require_bucket(url: str) -> None:
    """Raise ``DataError`` if the bucket of a URL doesn't exist; call this where nothing was found at the URL."""
    filesystem, path = locate(url)
    bucket = path.split("/")[0]
    try:
        exists = filesystem.get_file_info(bucket).type != fs.FileType.NotFound
    except OSError as error:
        raise DataError(f"{url}: can't be read: {error}. Check the network and your permissions.") from error
    if not exists:
        raise DataError(f"{url}: there is no bucket '{bucket}'. Check its name and your credentials.")


class ObjectFile(io.RawIOBase):
    """An object, open for random access; each read is one request, which is retried if it fails.

    pyarrow retries requests too, but not a request for a few bytes if the error response is longer than those.
    ``OSError`` if the object can't be read.
    """

    def __init__(self, url: str):
        filesystem, path = locate(url)
        self._file = _retried(lambda: filesystem.open_input_file(path))
        self._at = 0

    def readable(self) -> bool:
        return True

    seekable = readable

    def size(self) -> int:
        """Return the size in bytes."""
        return int(self._file.size())

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self.size() - self._at)

    def _read(self, count: int) -> bytes:
        data: bytes = _retried(lambda: self._file.read_at(count, self._at))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size()}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _retried(read: Callable[[], T]) -> T:
    for attempt in range(1, _READS):
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if "ACCESS_DENIED" in str(error):
                raise
            time.sleep(_PAUSE_S * 3**attempt)
    return read()
