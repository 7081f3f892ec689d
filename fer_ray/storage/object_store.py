"""Object stores by URL, ``s3://bucket/key`` and ``gs://bucket/key``, through pyarrow's filesystems.

Credentials come from where the stores' own tools take them: environment variables, profiles, roles.
``AWS_ENDPOINT_URL`` names a server other than Amazon's, ``AWS_REGION`` the region; without it the bucket is asked.
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
    """Check that something listens at a TCP port.

    Args:
        setting: what names the address, and its value.
        kind: of error.
        remedy: the end of its message.

    Raises:
        FerRayError: nothing does, or there is no such host; of that kind.
    """
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise kind(f"{setting}: nothing answers there: {error.strerror or error}. {remedy}") from error


REQUESTS_AT_ONCE = 24
"""Of one process: stores answer slowly, and pyarrow keeps 25 connections to one."""
_REQUEST_S = 60.0
_ATTEMPTS = 10  # with growing pauses, about a minute in all: a store under load answers 503 for a while
_READS, _PAUSE_S = 5, 0.1
T = TypeVar("T")


def as_url(place: Path | str) -> str | None:
    """Return the URL that a text, or a path made of one, names; None for a local path.

    Raises:
        UsageError: no known kind of URL, one without a bucket, with an empty part, or with a secret in it.
    """
    named = split_url(place)
    if not named:
        return None
    scheme, rest = named
    if scheme not in ("s3", "gs"):
        raise UsageError(f"{place}: no known kind of URL. Name a local path, or one that begins with s3:// or gs://.")
    url = f"{scheme}://{rest}"
    if "@" in rest.split("/")[0] or holds_secret(url):
        raise UsageError(
            f"{url}: no key, password or signature may be in a URL, as URLs are shown and kept. Give them by the"
            " environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS), a profile or"
            " a role."
        )
    if not rest.split("/")[0]:
        raise UsageError(f"{place}: names no bucket. Write {scheme}://BUCKET/KEY.")
    if "//" in rest:
        raise UsageError(f"{url}: has an empty part between two slashes. Write one slash.")
    return url


def absolute(place: Path | str) -> str:
    """Return a URL, or an absolute path, that means the same in every process.

    Raises:
        UsageError: no known kind of URL.
    """
    return as_url(place) or str(local_path(place))


def locate(url: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of a URL and the path in it, ``bucket/key``, without a slash at its end.

    Raises:
        DataError: the store can't be reached.
    """
    scheme, _, path = url.partition("://")
    return _open(scheme, path.split("/")[0]), path.rstrip("/")


@functools.cache
def _open(scheme: str, bucket: str) -> fs.FileSystem:
    if scheme == "gs":
        return fs.GcsFileSystem()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    server_scheme, _, server = endpoint.rpartition("://")
    if server:
        _require_answer(endpoint)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError as error:
            raise DataError(
                f"s3://{bucket}: {error}. Check the bucket's name and the network, or set AWS_REGION."
            ) from error
    return fs.S3FileSystem(
        region=region,
        endpoint_override=server or None,
        scheme=server_scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def require_free(url: str, in_use: bool, resume: bool) -> None:
    """Check that an output is free to write to.

    Args:
        url: of the output.
        in_use: whether an object is there.
        resume: whether one shall be.

    Raises:
        UsageError: it is in use while ``resume`` is False, or not while it is True.
        DataError: there is no such bucket, or the store can't be reached.
    """
    if not in_use:
        require_bucket(url)
    if in_use and not resume:
        raise UsageError(
            f"{url}: the output is in use, and nothing is overwritten. Choose another prefix, or go on with it by"
            " --resume where the stage has that."
        )
    if resume and not in_use:
        raise UsageError(f"{url}: nothing to resume, no object is there. Run once without --resume.")


def path_below(place: Path | str, folder: Path | str) -> str | None:
    """Return the path from a folder or prefix down to a place, empty where they are one; None where it isn't below.

    Links and ``..`` are followed; neither need exist.
    """
    inner, outer = (as_url(one) or os.path.realpath(local_path(one)) for one in (place, folder))
    inner, outer = inner.rstrip("/") + "/", outer.rstrip("/") + "/"
    return inner[len(outer) :].rstrip("/") if inner.startswith(outer) else None


def require_apart(output: Path | str, inputs: Iterable[Path | str]) -> None:
    """Check that an output doesn't lie in an input.

    Raises:
        UsageError: it does, or is one; all such inputs at once.
    """
    around = [place for place in inputs if path_below(output, place) is not None]
    if around:
        raise UsageError([lies_inside(output, place) for place in around])


def lies_inside(output: Path | str, place: Path | str) -> str:
    """Return the message about an output in an input."""
    return f"{output}: lies in the input {place}, which would then hold its own results. Choose one outside."


def require_bucket(url: str) -> None:
    """Check that the bucket of a URL below which nothing was found is there.

    Raises:
        DataError: it isn't, as far as the store says; or the store can't be reached.
    """
    filesystem, path = locate(url)
    bucket = path.split("/")[0]
    try:
        there = filesystem.get_file_info(bucket).type != fs.FileType.NotFound
    except OSError as error:
        raise DataError(f"{url}: can't be read: {error}. Check the network and your permissions.") from error
    if not there:
        raise DataError(f"{url}: there is no bucket '{bucket}'. Check its name, and whether your credentials reach it.")


def _require_answer(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    remedy = "Start that server or mend the variable; unset, it means Amazon's S3."
    require_answer(f"AWS_ENDPOINT_URL={endpoint}", parts.hostname or "", port, DataError, remedy)


class ObjectFile(io.RawIOBase):
    """An object, open to read anywhere in it; each ``read`` is one request, and is made again where it fails.

    pyarrow makes requests again itself, but not those for a few bytes whose refusal (a page of XML) is longer than what
    was asked for.

    Raises:
        OSError: it can't be read.
    """

    def __init__(self, url: str):
        filesystem, path = locate(url)
        self._file = _persistently(lambda: filesystem.open_input_file(path))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        """Return its bytes."""
        return int(self._file.size())

    def readinto(self, buffer: Any) -> int:
        data = _persistently(lambda: self._file.read_at(len(buffer), self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        data: bytes = _persistently(lambda: self._file.read_at(self.size() - self._at, self._at))
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


def _persistently(read: Callable[[], T]) -> T:
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
