"""Listing trees of any size: folders are asked ahead in threads, and what is found comes in one order all the same."""

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

AHEAD = 16
"""Folders asked at once: network drives and object stores answer in milliseconds each, however many are asked."""
RUN = 100_000
"""Names that are held and sorted at once. A larger folder comes in runs of so many, each in order."""

_Entry = tuple[bytes, bool]  # path, and whether it is a folder


@dataclass(frozen=True)
class Content:
    """What a folder holds.

    Attributes:
        identity: the same for the same folder by another path; None where that can't be.
        runs: lists of (path, whether it is a folder), up to ``RUN`` each.
    """

    identity: Hashable | None
    runs: Iterator[list[_Entry]]


def runs_of(entries: Iterator[_Entry]) -> Iterator[list[_Entry]]:
    """Cut entries into sorted lists of up to ``RUN``."""
    while run := list(islice(entries, RUN)):
        yield sorted(run)


def walk(
    root: bytes,
    list_folder: Callable[[bytes], Content],
    unlistable: Callable[[OSError], None] | None = None,
) -> Iterator[bytes]:
    """Yield the files below a folder: those in it by name, then those of each folder in it, by name.

    Links are followed, but for those that lead to a folder above themselves. Memory holds the names of a run, and the
    folders that are still to be listed.

    Args:
        root: the folder.
        list_folder: lists one; called in threads; may raise ``OSError``.
        unlistable: told about each folder that can't be listed; without it such a folder is yielded itself, so that
            reading it says why.
    """
    pending: list[tuple[bytes, frozenset[Hashable]]] = [(root, frozenset())]  # with the identities of those above
    asked = dict[bytes, Future[_Listed]]()
    with ThreadPoolExecutor(AHEAD, "listing") as pool:
        while pending:
            for path, _ in islice(reversed(pending), AHEAD):
                if path not in asked and len(asked) < 2 * AHEAD:
                    asked[path] = pool.submit(_first_run, path, list_folder)
            (path, above), folders = pending.pop(), list[bytes]()
            try:
                content, run = (asked.pop(path, None) or pool.submit(_first_run, path, list_folder)).result()
                if content.identity in above:
                    continue
                above |= {content.identity} - {None}
                while run:
                    yield from (found for found, is_folder in run if not is_folder)
                    folders += [found for found, is_folder in run if is_folder]
                    run = next(content.runs, [])
            except OSError as error:
                if unlistable is None:
                    yield path
                else:
                    unlistable(error)
            pending.extend((folder, above) for folder in reversed(folders))


_Listed = tuple[Content, list[_Entry]]


def _first_run(path: bytes, list_folder: Callable[[bytes], Content]) -> _Listed:
    content = list_folder(path)
    return content, next(content.runs, [])
