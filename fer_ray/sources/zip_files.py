"""Members of a .zip: listed once, then read by their position in the file, in any process, without unpacking.

Listing a .zip again in each task would take longer than decoding the task's images.
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from fer_ray.errors import DataError
from fer_ray.images.image_files import MAX_BYTES, FileError

Member = dict[str, Any]
"""``path``; ``problem``, the reason why it can't be read, or None; and the entries of ``LOCATION``."""

LOCATION = ("offset", "packed", "length", "method", "crc")
"""The entries of a ``Member``, all integers, that locate its bytes and say how they are compressed."""

_LOCAL_HEADER = 30  # bytes of a member's own header, before its name and extra field


def list_members(path: Path) -> list[Member]:
    """List the files in a .zip. Their paths leave out a single root folder that has the .zip's own name.

    Raises:
        DataError: the .zip is damaged.
    """
    try:
        with path.open("rb") as file:
            members = read_directory(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: not readable as a .zip: {error}. Copy or download it again.") from error
    root = f"{path.stem}/"
    cut = len(root) if all(member["path"].startswith(root) for member in members) else 0
    return [member | {"path": member["path"][cut:]} for member in members]


def read_directory(file: IO[bytes]) -> list[Member]:
    """List the files in an open, seekable .zip.

    Backslashes in names, which some Windows programs write, count as slashes.

    Raises:
        zipfile.BadZipFile, OSError, ValueError, NotImplementedError: the .zip is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    names = [info.filename.replace("\\", "/") for info in infos]
    last = {name: number for number, name in enumerate(names)}
    members = list[Member]()
    for number, (name, info) in enumerate(zip(names, infos, strict=True)):
        location = (info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
        problem = _problem(info, name, is_doubled=last[name] != number)
        members.append({"path": name, "problem": problem, **dict(zip(LOCATION, location, strict=True))})
    return members


def read_member(file: IO[bytes], member: Member) -> bytes:
    """Return a member's bytes.

    Raises:
        FileError: they can't be read.
    """
    file.seek(member["offset"])
    header = file.read(_LOCAL_HEADER)
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
    return _unpack(file.read(member["packed"]), member)


def _problem(info: zipfile.ZipInfo, path: str, is_doubled: bool) -> str | None:
    if is_doubled:
        return "a later member of the .zip has the same name and replaces it"
    if path.startswith("/") or path[1:3] == ":/" or ".." in path.split("/"):
        return "its name points outside the .zip"
    if info.flag_bits & 1:
        return "unreadable: encrypted in the .zip"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"unreadable: .zip compression method {info.compress_type}; supported are stored and deflated"
    if max(info.file_size, info.compress_size) > MAX_BYTES:
        return f"too_large: unpacks to {info.file_size:,} bytes, more than the {MAX_BYTES:,} allowed"
    return None


def _unpack(packed: bytes, member: Member) -> bytes:
    data = packed
    if member["method"] == zipfile.ZIP_DEFLATED:
        try:  # one byte more than the listed length, never the rest of a bomb
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member["length"] + 1)
        except zlib.error as error:
            raise FileError("unreadable", f"damaged in the .zip ({error})") from error
    if len(data) != member["length"] or zlib.crc32(data) != member["crc"]:
        raise FileError("unreadable", "damaged in the .zip (its length or checksum differs)")
    return data
