"""List the images of a scoring job's inputs: folders, files, patterns, lists, containers and URLs.

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
from fer_ray.storage.object_store import absolute, as_url, inside_input, locate, path_below

PATH = ("path", "file", "filename", "file_name", "url", "uri")
"""Names of a column of paths or URLs."""
_LISTS = (".txt", ".lst")
_LINE_BYTES, _BLOCK_BYTES = 1 << 16, 1 << 20
_MAGIC = re.compile(r"[*?\[]")
_WRITTEN = ("part-00000.parquet", "part-00000.csv", "summary.json", "summary.html", "_pieces/0000000.parquet")


def check_inputs(inputs: Sequence[Path | str]) -> list[str]:
    """Return the inputs as absolute paths and URLs.

    Raises:
        UsageError: there is no input, or one is a URL of an unknown kind.
        DataError: an input is missing.
    """
    if not inputs:
        raise UsageError("no INPUT: name folders, images, lists, .zip or .tar files, or s3:// or gs:// prefixes.")
    paths_or_urls, problems = [], list[str]()
    for given in inputs:
        path_or_url = absolute(given)
        paths_or_urls.append(path_or_url)
        if problem := _problem(path_or_url):
            problems.append(problem)
    if problems:
        raise DataError(problems)
    return paths_or_urls


def check_apart(inputs: Sequence[str], output: str) -> None:
    """See to it that a job doesn't find its own output among its inputs, as far as that shows without listing them.

    Args:
        inputs: as ``check_inputs`` returns them.
        output: absolute path or URL.

    Raises:
        UsageError: the output lies in an input, or an input in the output.
    """
    problems = list[str]()
    for path_or_url in inputs:
        base = _split_pattern(path_or_url)[0] if _is_pattern(path_or_url) else path_or_url
        below = path_below(output, base)
        if below is not None and _is_taken_in(path_or_url, below):
            problems.append(inside_input(output, path_or_url))
        elif path_below(base, output):
            problems.append(f"{path_or_url}: an input that lies in the output {output}. Choose one outside.")
    if problems:
        raise UsageError(problems)


def list_entries(inputs: Sequence[str], on_skipped: Callable[[], None], output: str = "") -> Iterator[Entry]:
    """Yield the images of the inputs, in their order.

    Args:
        inputs: as ``check_inputs`` returns them.
        on_skipped: called for each member of a container whose name isn't an image's.
        output: absolute path or URL of the job's output.

    Raises:
        DataError: a list can't be read.
        UsageError: a link leads to the output, or a list names a file in it.
    """
    for path_or_url in inputs:
        if _is_pattern(path_or_url):
            for file in _matching(path_or_url, output):
                yield from _opened(file, on_skipped)
        elif _is_folder(path_or_url):
            yield from map(Entry, _below(path_or_url, path_or_url, output))
        else:
            yield from _file(os.fsencode(path_or_url), on_skipped, output)


def is_plain_folder(path_or_url: str) -> bool:
    """Say whether the input is a folder or prefix, whose images are listed once each in any case."""
    return not _is_pattern(path_or_url) and _is_folder(path_or_url)


def _problem(path_or_url: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(path_or_url).suffixes[-2:]]
    if suffixes[-1:] == [".tgz"] or (suffixes[:1] == [".tar"] and len(suffixes) == 2):
        return f"{path_or_url}: a compressed .tar, which can't be read at random. Unpack it to a .tar or a folder."
    if _is_pattern(path_or_url):
        base, _ = _split_pattern(path_or_url)
        return None if _exists(base) else f"{path_or_url}: no such folder as {base}. Mend the pattern."
    if _exists(path_or_url):
        return None
    where = "" if as_url(path_or_url) else f"; relative paths start at {Path.cwd()}"
    return f"{path_or_url}: no such file or folder. Name an existing one{where}."


def _exists(path_or_url: str) -> bool:
    if not as_url(path_or_url):
        return os.path.lexists(path_or_url)
    return bool(_info(path_or_url).type != fs.FileType.NotFound)


def _is_folder(path_or_url: str) -> bool:
    return bool(_info(path_or_url).type == fs.FileType.Directory) if as_url(path_or_url) else Path(path_or_url).is_dir()


def _info(url: str) -> fs.FileInfo:
    filesystem, path = locate(url)
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise DataError(f"{url}: can't be reached: {error}. Check name, network and credentials.") from error


def _is_taken_in(path_or_url: str, below: str) -> bool:
    """Say whether an input that starts at some folder stands for what is written to a folder so far below that one."""
    if not _is_pattern(path_or_url):
        return True
    expression = _split_pattern(path_or_url)[1]
    return any(expression.fullmatch(f"{below}/{name}".lstrip("/")) for name in ("", *_WRITTEN))


def _below(folder: str, path_or_url: str, output: str) -> Iterator[bytes]:
    if not as_url(folder):
        start = len(os.fsencode(folder.rstrip("/"))) + 1
        own = identity_of(os.fsencode(output)) if output and Path(output).is_dir() else None

        def reached(path: bytes, identity: Hashable) -> None:
            if identity == own and _is_taken_in(path_or_url, os.fsdecode(path[start:])):
                raise UsageError(inside_input(output, f"{path_or_url}, as {os.fsdecode(path)}"))

        yield from list_files([Path(folder)], reached=reached if own else None)
        return
    filesystem, path = locate(folder)
    scheme = folder.partition("://")[0]

    def list_prefix(url: bytes) -> Content:
        _, path_or_url = locate(os.fsdecode(url))
        found = filesystem.get_file_info(fs.FileSelector(path_or_url))
        return Content(
            None,
            runs_of(
                (os.fsencode(f"{scheme}://{info.path}"), info.type == fs.FileType.Directory)
                for info in found
                if not info.base_name.startswith(".")
            ),
        )

    yield from walk(os.fsencode(f"{scheme}://{path}"), list_prefix)


def _is_pattern(path_or_url: str) -> bool:
    """Say whether it is one; a local name that exists and has such characters in it is itself meant."""
    return bool(_MAGIC.search(path_or_url)) and (as_url(path_or_url) is not None or not os.path.lexists(path_or_url))


def _split_pattern(path_or_url: str) -> tuple[str, re.Pattern[str]]:
    """Return the folder that a pattern starts at, and an expression for what lies below that."""
    parts = path_or_url.split("/")
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


def _file(file: bytes, on_skipped: Callable[[], None], output: str) -> Iterator[Entry]:
    """Yield what a file stands for that was named itself."""
    name = os.fsdecode(file)
    if name.lower().endswith(_LISTS):
        listed = _lines(file)
    elif name.lower().endswith(".parquet") and (column := _path_column(file)):
        listed = _cells(file, column)
    else:
        yield from _opened(file, on_skipped)
        return
    folder = name.rpartition("/")[0]
    inside = (f"{output}/", f"{os.path.realpath(output)}/") if output else ("\0",)
    for row, line in enumerate(listed):
        if not line:
            yield Entry(b"%s!/%d" % (file, row), problem="missing: the list has no path in this row")
            continue
        text = os.fsdecode(line)
        try:
            path_or_url = as_url(text) or (text if text.startswith("/") else f"{folder}/{text}")
        except FerRayError as error:
            # The name may hold a key or signature, and nothing can be read by it.
            yield Entry(os.fsencode(redacted(text)), problem=f"missing: {error}")
        else:
            if (os.path.normpath(path_or_url) if "/." in path_or_url else path_or_url).startswith(inside):
                raise UsageError(
                    f"{output}: the list {name} names {path_or_url}, which lies in it. Remove it from the list."
                )
            yield from _opened(os.fsencode(path_or_url), on_skipped)


def _opened(file: bytes, on_skipped: Callable[[], None]) -> Iterator[Entry]:
    if is_container(os.fsdecode(file)):
        yield from list_container(file, on_skipped)
    else:
        yield Entry(file)


def _lines(file: bytes) -> Iterator[bytes]:
    shown = os.fsdecode(file)
    try:
        with open_anywhere(file) as opened:
            end, rest = b"", opened.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
            if rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{shown}: the list is in UTF-16. Save it as UTF-8.")
            while block := opened.read(_BLOCK_BYTES):
                end = end or (b"\0" if b"\0" in block else b"\n")
                *lines, rest = (rest + block).split(end)
                if len(rest) > _LINE_BYTES:
                    raise DataError(
                        f"{shown}: a line has more than {_LINE_BYTES:,} bytes, so this is no list of paths. Rename"
                        " images that end in .txt."
                    )
                yield from (line for line in map(_stripped, lines) if line)
            if _stripped(rest):
                yield _stripped(rest)
    except OSError as error:
        raise DataError(f"{shown}: the list can't be read: {error}. Check it, or omit it.") from error


def _stripped(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def _path_column(file: bytes) -> str | None:
    """Return the column of paths of a Parquet file without images; None where it is no list of paths."""
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
        raise DataError(f"{os.fsdecode(file)}: the list can't be read: {error}. Write it again.") from error
