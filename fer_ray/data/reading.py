"""Bytes of entries, wherever they lie."""

import threading
from typing import cast

import pyarrow as pa

from fer_ray.data.archives import ContainerReader, Entry
from fer_ray.data.disk import MAX_BYTES, FileError, FileProblem, read_file
from fer_ray.object_stores import ObjectFile

_own = threading.local()


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry.

    Raises:
        FileError: they can't be had, with the kind of problem.
    """
    if entry.problem:
        status, _, message = entry.problem.partition(": ")
        raise FileError(cast(FileProblem, status), message)
    if entry.container:
        if not hasattr(_own, "containers"):
            _own.containers = ContainerReader()
        data: bytes = _own.containers.read(entry)
        return data
    return _read_object(entry.name.decode()) if entry.name.startswith((b"s3://", b"gs://")) else read_file(entry.name)


def _read_object(url: str) -> bytes:
    try:
        with ObjectFile(url) as file:
            if file.size() > MAX_BYTES:
                raise FileError("too_large", f"{file.size():,} bytes, more than the {MAX_BYTES:,} allowed")
            return file.readall()
    except FileNotFoundError as error:
        raise FileError("missing", "no such object") from error
    except (OSError, pa.ArrowException) as error:
        text = str(error).lower()
        raise FileError("timeout" if "timeout" in text or "timed out" in text else "unreadable", str(error)) from error
