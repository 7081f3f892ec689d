"""What a scoring job is given: folders, files, patterns, lists, containers and URLs, and the images they stand for.

===========================  ==========================================================================================
input                        its images
===========================  ==========================================================================================
a folder, ``s3://B/PREFIX``  every file below it, whatever its name, but for names that begin with a dot
a pattern                    what ``photos/2024-*/**/*.jpg`` matches: ``*`` and ``?`` within a name, ``**`` any folders;
                             a folder that it matches, with all below it
.txt, .lst                   the path or URL on each line; or between NUL bytes, as ``find -print0`` writes them
.parquet                     image files' bytes in ``image``, or paths and URLs in ``path``
.zip, .tar                   the members that are called like images (``fer_ray.scoring.containers``)
any other file               itself
===========================  ==========================================================================================

Relative paths in a list start at the list's folder. A container that a pattern matches or a list names is opened as if
it were named itself; below a folder it is a file among others, as a list is below a folder, in a pattern or in a list.
"""

import codecs
import os
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from fer_ray.console.messages import redacted
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.images.image_files import Content, identity_of, list_files, runs_of, walk
from fer_ray.scoring.containers import Entry, is_container, list_container, open_anywhere
from fer_ray.sources.table_columns import IMAGE_COLUMNS, find_column, is_text
from fer_ray.storage.object_store import absolute, as_url, lies_inside, locate, path_below

PATH = ("path", "file", "filename", "file_name", "url", "uri")
"""Names of a column of paths or URLs."""
_LISTS = (".txt", ".lst")
_LINE_BYTES, _BLOCK_BYTES = 1 << 16, 1 << 20
_MAGIC = re.compile(r"[*?\[]")
_WRITTEN = ("part-00000.parquet", "part-00000.csv", "summary.json", "summary.html", "_pieces/0000000.parquet")


def check_inputs(inputs: Sequence[Path | str]) -> list[str]:
    """Return the inputs as absolute paths and URLs.

    Raises:
        UsageError: there is none, or one is of an unknown kind.
        DataError: one is missing.
    """
    if not inputs:
        raise UsageError("no INPUT: name folders, images, lists, .zip or .tar files, or s3:// or gs:// prefixes.")
    places, problems = [], list[str]()
    for given in inputs:
        place = absolute(given)
        places.append(place)
        if problem := _problem(place):
            problems.append(problem)
    if problems:
        raise DataError(problems)
    return places


def check_apart(places: Sequence[str], output: str) -> None:
    """See to it that a job doesn't find its own output among its inputs, as far as that shows without listing them.

    Args:
        places: as ``check_inputs`` returns them.
        output: absolute path or URL.

    Raises:
        UsageError: the output lies in an input, or an input in the output.
    """
    problems = list[str]()
    for place in places:
        base = _split_pattern(place)[0] if _is_pattern(place) else place
        below = path_below(output, base)
        if below is not None and _is_taken_in(place, below):
            problems.append(lies_inside(output, place))
        elif path_below(base, output):
            problems.append(f"{place}: an input that lies in the output {output}. Choose one outside.")
    if problems:
        raise UsageError(problems)


def list_entries(inputs: Sequence[str], passed_over: Callable[[], None], output: str = "") -> Iterator[Entry]:
    """Yield the images of the inputs, in their order; an image that several stand for comes as often.

    Args:
        inputs: as ``check_inputs`` returns them.
        passed_over: called for each member of a container that is no image by its name.
        output: absolute path or URL of the folder that the job writes.

    Raises:
        DataError: a list can't be read.
        UsageError: a link leads to the output, or a list names a file in it.
    """
    for place in inputs:
        if _is_pattern(place):
            for file in _matching(place, output):
                yield from _opened(file, passed_over)
        elif _is_folder(place):
            yield from map(Entry, _below(place, place, output))
        else:
            yield from _file(os.fsencode(place), passed_over, output)


def is_plain_folder(place: str) -> bool:
    """Say whether the input is a folder or prefix, whose images are listed once each in any case."""
    return not _is_pattern(place) and _is_folder(place)


def _problem(place: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(place).suffixes[-2:]]
    if suffixes[-1:] == [".tgz"] or (suffixes[:1] == [".tar"] and len(suffixes) == 2):
        return (
            f"{place}: a compressed .tar, in which nothing can be found without reading all before it. Unpack it to a"
            " .tar or a folder."
        )
    if _is_pattern(place):
        base, _ = _split_pattern(place)
        return None if _exists(base) else f"{place}: no such folder as {base}. Mend the pattern."
    if _exists(place):
        return None
    where = "" if as_url(place) else f"; relative paths start at {Path.cwd()}"
    return f"{place}: no such file or folder. Name an existing one{where}."


def _exists(place: str) -> bool:
    if not as_url(place):
        return os.path.lexists(place)
    return bool(_info(place).type != fs.FileType.NotFound)


def _is_folder(place: str) -> bool:
    return bool(_info(place).type == fs.FileType.Directory) if as_url(place) else Path(place).is_dir()


def _info(url: str) -> fs.FileInfo:
    filesystem, path = locate(url)
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise DataError(f"{url}: can't be reached: {error}. Check name, network and credentials.") from error


def _is_taken_in(place: str, below: str) -> bool:
    """Say whether an input that starts at some folder stands for what is written to a folder so far below that one."""
    if not _is_pattern(place):
        return True
    expression = _split_pattern(place)[1]
    return any(expression.fullmatch(f"{below}/{name}".lstrip("/")) for name in ("", *_WRITTEN))


def _below(folder: str, place: str, output: str) -> Iterator[bytes]:
    if not as_url(folder):
        start = len(os.fsencode(folder.rstrip("/"))) + 1
        own = identity_of(os.fsencode(output)) if output and Path(output).is_dir() else None

        def reached(path: bytes, identity: Hashable) -> None:
            if identity == own and _is_taken_in(place, os.fsdecode(path[start:])):
                raise UsageError(lies_inside(output, f"{place}, as {os.fsdecode(path)}"))

        yield from list_files([Path(folder)], reached=reached if own else None)
        return
    filesystem, path = locate(folder)
    scheme = folder.partition("://")[0]

    def list_prefix(url: bytes) -> Content:
        _, place = locate(os.fsdecode(url))
        found = filesystem.get_file_info(fs.FileSelector(place))
        return Content(
            None,
            runs_of(
                (os.fsencode(f"{scheme}://{info.path}"), info.type == fs.FileType.Directory)
                for info in found
                if not info.base_name.startswith(".")
            ),
        )

    yield from walk(os.fsencode(f"{scheme}://{path}"), list_prefix)


def _is_pattern(place: str) -> bool:
    """Say whether it is one; a local name that exists and has such characters in it is itself meant."""
    return bool(_MAGIC.search(place)) and (as_url(place) is not None or not os.path.lexists(place))


def _split_pattern(place: str) -> tuple[str, re.Pattern[str]]:
    """Return the folder that a pattern starts at, and an expression for what lies below that."""
    parts = place.split("/")
    first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
    *folders, last = parts[first:]
    expression = "".join(r"(?:[^/]+/)*" if part == "**" else _within_name(part) + "/" for part in folders)
    expression += ".*" if last == "**" else _within_name(last) + "(?:/.*)?"
    return "/".join(parts[:first]) or "/", re.compile(expression, re.DOTALL)


def _within_name(part: str) -> str:
    """Translate a part of a pattern: ``*``, ``?``, and sets such as ``[0-9]`` or ``[!ab]``."""
    text = ""
    for piece in re.split(r"(\*|\?|\[!?[^]]+\])", part):
        if piece == "*":
            text += "[^/]*"
        elif piece == "?":
            text += "[^/]"
        elif piece.startswith("[") and piece.endswith("]"):
            text += "[" + re.sub(r"[\\[&~|]", r"\\\g<0>", piece[1:-1]).replace("!", "^", int(piece[1] == "!")) + "]"
        else:
            text += re.escape(piece)
    return text


def _matching(pattern: str, output: str) -> Iterator[bytes]:
    base, expression = _split_pattern(pattern)
    start = len(os.fsencode(base.rstrip("/"))) + 1
    for file in _below(base, pattern, output):
        if expression.fullmatch(os.fsdecode(file[start:])):
            yield file


def _file(file: bytes, passed_over: Callable[[], None], output: str) -> Iterator[Entry]:
    """Yield what a file stands for that was named itself."""
    name = os.fsdecode(file)
    if name.lower().endswith(_LISTS):
        listed = _lines(file)
    elif name.lower().endswith(".parquet") and (column := _path_column(file)):
        listed = _cells(file, column)
    else:
        yield from _opened(file, passed_over)
        return
    folder = name.rpartition("/")[0]
    inside = (f"{output}/", f"{os.path.realpath(output)}/") if output else ("\0",)
    for row, line in enumerate(listed):
        if not line:
            yield Entry(b"%s!/%d" % (file, row), problem="missing: the list has no path in this row")
            continue
        text = os.fsdecode(line)
        try:
            place = as_url(text) or (text if text.startswith("/") else f"{folder}/{text}")
        except FerRayError as error:
            # It can't be read, so that nobody needs the key or signature that may be in it.
            yield Entry(os.fsencode(redacted(text)), problem=f"missing: {error}")
        else:
            if (os.path.normpath(place) if "/." in place else place).startswith(inside):
                raise UsageError(f"{output}: the list {name} names {place}, which lies in it. Take it out of the list.")
            yield from _opened(os.fsencode(place), passed_over)


def _opened(file: bytes, passed_over: Callable[[], None]) -> Iterator[Entry]:
    if is_container(os.fsdecode(file)):
        yield from list_container(file, passed_over)
    else:
        yield Entry(file)


def _lines(file: bytes) -> Iterator[bytes]:
    shown = os.fsdecode(file)
    try:
        with open_anywhere(file) as opened:
            end, rest = b"", opened.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
            if rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{shown}: a list in UTF-16: paths in UTF-8 are expected. Save it as UTF-8.")
            while block := opened.read(_BLOCK_BYTES):
                end = end or (b"\0" if b"\0" in block else b"\n")
                *lines, rest = (rest + block).split(end)
                if len(rest) > _LINE_BYTES:
                    raise DataError(
                        f"{shown}: a line of more than {_LINE_BYTES:,} bytes: that is no list of paths. Give images"
                        " another suffix than .txt."
                    )
                yield from (line for line in map(_stripped, lines) if line)
            if _stripped(rest):
                yield _stripped(rest)
    except OSError as error:
        raise DataError(f"{shown}: the list can't be read: {error}. Check it, or leave it out.") from error


def _stripped(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def _path_column(file: bytes) -> str | None:
    """Return the column of paths of a Parquet file that has none of images; None where it isn't such a list."""
    try:
        with open_anywhere(file) as opened, pq.ParquetFile(opened) as table:
            schema = table.schema_arrow
    except (OSError, pa.ArrowException):
        return None  # listing it as a container says what is wrong
    column = find_column(schema, PATH)
    is_list = find_column(schema, IMAGE_COLUMNS) is None and column is not None and is_text(schema.field(column).type)
    return column if is_list else None


def _cells(file: bytes, column: str) -> Iterator[bytes]:
    try:
        with open_anywhere(file) as opened, pq.ParquetFile(opened) as table:
            for batch in table.iter_batches(columns=[column]):
                yield from (os.fsencode(cell or "") for cell in batch[0].to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{os.fsdecode(file)}: the list can't be read: {error}. Write it anew.") from error
