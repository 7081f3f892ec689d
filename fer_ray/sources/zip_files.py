"""Members of a .zip: listed once, then read by their position in the file, in any process, without unpacking.

Listing a .zip again in each task would take longer than decoding the task's images.
"""

import os
import zipfile
import zlib
from typing import IO, NamedTuple

from fer_ray.images.image_files import MAX_BYTES, FileError

Location = tuple[int, ...]
"""Offset of a member, packed bytes, unpacked bytes, compression method, CRC-32."""
_LOCAL_HEADER = 30  # bytes of a member's own header, before its name and extra field


class Member(NamedTuple):
    """A file in a .zip; ``problem`` is the reason why it can't be read, with its ``FileProblem``, or empty."""

    path: str
    location: Location
    problem: str


def list_members(file: IO[bytes]) -> list[Member]:
    """List the files in an open, seekable .zip.

    Backslashes in names, which some Windows programs write, count as slashes. A damaged .zip raises ``BadZipFile``,
    ``OSError``, ``ValueError`` or ``NotImplementedError``.
    """
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    names = [info.filename.replace("\\", "/") for info in infos]
    last = {name: number for number, name in enumerate(names)}
    members = list[Member]()
    for number, (name, info) in enumerate(zip(names, infos, strict=True)):
        location = (info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
        members.append(Member(name, location, _problem(info, name, is_doubled=last[name] != number)))
    return members


def _problem(info: zipfile.ZipInfo, path: str, is_doubled: bool) -> str:
    if is_doubled:
        return "unreadable: a later member of the .zip has the same name and replaces it"
    if path.startswith("/") or path[1:3] == ":/" or ".." in path.split("/"):
        return "unreadable: its name points outside the .zip"
    if info.flag_bits & 1:
        return "unreadable: encrypted in the .zip"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"unreadable: .zip compression method {info.compress_type}; supported are stored and deflated"
    if max(info.file_size, info.compress_size) > MAX_BYTES:
        return f"too_large: unpacks to {info.file_size:,} bytes, more than the {MAX_BYTES:,} allowed"
    return ""


def read_member(file: IO[bytes], location: Location) -> bytes:
    """Return a member's bytes; ``FileError`` if they can't be read."""
    offset, packed, length, method, crc = location
    file.seek(offset)
    header = file.read(_LOCAL_HEADER)
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
    data = file.read(packed)
    if method == zipfile.ZIP_DEFLATED:
        try:  # one byte more than the listed length, never the rest of a bomb
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, length + 1)
        except zlib.error as error:
            raise FileError("unreadable", f"damaged in the .zip ({error})") from error
    if len(data) != length or zlib.crc32(data) != crc:
        raise FileError("unreadable", "damaged in the .zip (its length or checksum differs)")
    return data
