"""What splits are called in the wild, and what that makes of folders and files that lie side by side.

A split is read from a word within a name, as in ``val_set``, ``FER2013Valid`` or ``images for validation``. ``dev`` is
validation, and so are ``eval`` and ``holdout`` unless a neighbour is called validation, which leaves them the test.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from fer_ray.errors import DataError

_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "validate", "validating", "dev", "devel", "development"),
    "test": ("test", "testing", "tests", "tst"),
    "": ("eval", "evaluation", "holdout"),  # validation or test: the neighbours tell
}
_OFFICIAL = {"publictest": "validation", "privatetest": "test"}
_SPLIT_OF_WORD = {word: split for split, words in _WORDS.items() for word in words} | _OFFICIAL
_ENDINGS = re.compile(r"(?:sets?|data|dataset|images?|imgs?|faces|files|splits?|samples|photos|pics)$")
_JOINED = re.compile(r"(public|private|hold)[\W_]*(test|out)", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of CamelCase too
_NEUTRAL = re.compile(
    "(fer|ferplus|plus|rafdb|raf|db|affectnet|ck|kdef|faces?|facial|expressions?|emotions?|images?|imgs?|data|dataset"
    "|sets?|split|folder|photos|pictures|files|aligned|basic|official|original)$"
)
_Meaning = Mapping[tuple[str, ...], Mapping[str, str | None]]  # by parent folder, then by name
_SHOWN = 8
_MOST_SPLITS = 4  # more folders than that, none called like a split, are persons or sources


class Place(NamedTuple):
    """Where files lie.

    Attributes:
        names: of the folders from the root on; where files may be called like splits too, the file's is the last.
        label_at: position of the folder that is named after a label; the length of ``names`` where there is none.
    """

    names: tuple[str, ...]
    label_at: int


def read_splits(names: Iterable[str], given: Mapping[str, str]) -> dict[str, str | None]:
    """Return the split that each of several neighbouring names means, None for one that says none.

    Args:
        names: of folders, files, or in a column.
        given: splits by patterns of names, case aside, which come before any word.
    """
    found = {name: _given(name, given) or _word(name) for name in names}
    is_said = "validation" in found.values()
    for name in found:
        if found[name] == "":
            found[name] = "test" if is_said else "validation"
    return found


def split_of_root(name: str, given: Mapping[str, str]) -> str | None:
    """Return the split that the name of a whole source means: one whose other words say nothing, as in ``test_images``.

    A folder of some project that has the word in its name is no split for that.
    """
    words = {word for word in _words(name) if not _NEUTRAL.match(word) and _split_of_word(word) is None}
    return _given(name, given) or (None if words else read_splits([name], {})[name])


def splits_of_places(
    places: Collection[Place], given: Mapping[str, str], where: str
) -> tuple[dict[Place, str | None], list[str]]:
    """Return the split that each place means, None where no name says one, and what is to be said about them.

    The deepest folder above the label decides; without one there, the deepest below it, or else a word in the label's
    own folder, as in ``train_happy``.

    Args:
        places: of all files of a source.
        given: as for ``read_splits``.
        where: name of the source, for messages.

    Raises:
        DataError: of names side by side some are called like splits and one is not, or so few that they may be splits
            are all called otherwise.
    """
    neighbours: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for names, label_at in places:
        for at, name in enumerate(names):
            if at != label_at:
                neighbours[names[:at]].add(name)
    meaning = {parent: read_splits(sorted(names), given) for parent, names in neighbours.items()}
    splits, overridden, is_below = dict[Place, str | None](), set[str](), False
    for place in places:
        named = [at for at in range(len(place.names)) if at != place.label_at and _at(meaning, place, at)]
        chosen = _deciding(meaning, place, named)
        own = place.names[place.label_at : place.label_at + 1]
        splits[place] = split = (
            _at(meaning, place, chosen) if chosen is not None else next(iter(read_splits(own, given).values()), None)
        )
        is_below |= chosen is not None and chosen > place.label_at
        overridden |= {place.names[at] for at in named if at > (chosen or 0) and _at(meaning, place, at) != split}
    _require_all_named(splits, neighbours, is_below, where)
    listed = ", ".join(sorted(overridden)[:_SHOWN])
    note = (
        f"Folders called {listed} lie within a split and beside folders of other names: they are taken for no splits."
    )
    return splits, [note] if overridden else []


def _deciding(
    meaning: Mapping[tuple[str, ...], Mapping[str, str | None]], place: Place, named: list[int]
) -> int | None:
    above = [at for at in named if at < place.label_at]
    # Of persons' folders within a split, one may be called like another split.
    while len(above) > 1 and None in meaning[place.names[: above[-1]]].values():
        above.pop()
    return above[-1] if above else max(named, default=None)


def _at(meaning: _Meaning, place: Place, at: int) -> str | None:
    return meaning[place.names[:at]][place.names[at]]


def _require_all_named(
    splits: Mapping[Place, str | None], neighbours: Mapping[tuple[str, ...], set[str]], is_below: bool, where: str
) -> None:
    named = {place.names[: at + 1] for place, split in splits.items() if split for at in range(len(place.names))}
    problems = set()
    for names, label_at in (place for place, split in splits.items() if not split):
        for at, name in enumerate(names):
            beside = neighbours[names[:at]]
            if at != label_at and any((*names[:at], other) in named for other in beside if other != name):
                problems.add(_problem(where, names[:at], sorted(beside), name))
        if is_below and label_at < len(names) and not problems:
            problems.add(
                f"{where}: some folders named after emotions hold folders that are called like splits, and"
                f" {'/'.join(names)} is in none of these. Move its images into one of them."
            )
    problems |= _unnamed(splits, neighbours, where) if not named else set()
    if problems:
        raise DataError(sorted(problems))


def _unnamed(
    splits: Mapping[Place, str | None], neighbours: Mapping[tuple[str, ...], set[str]], where: str
) -> set[str]:
    """Find neighbours right above the labels that are as few as splits and of which none is called like one."""
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for names, label_at in splits:
        folder = names[:label_at]
        labels[folder].update(names[label_at : label_at + 1] or ("", *folder[-1:]))  # a file holds labels of all kinds
    return {
        _problem(where, parent, sorted(names), sorted(names)[0])
        for parent, names in neighbours.items()
        if 2 <= len(names) <= _MOST_SPLITS and all(len(labels[*parent, name]) > 1 for name in names)
    }


def _problem(where: str, parent: tuple[str, ...], names: list[str], unknown: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    inside = f" in {'/'.join(parent)}" if parent else ""
    return (
        f"{where}: side by side{inside} are {shown}, and {unknown} is called like no split. Say what it is by"
        f" --splits '{unknown}=SPLIT' (train, validation or test; * stands for any text), or take it away."
    )


def _given(name: str, given: Mapping[str, str]) -> str | None:
    return next((split for pattern, split in given.items() if fnmatchcase(name.strip().lower(), pattern.lower())), None)


def _word(name: str) -> str | None:
    """Return the split that a name's words mean, empty for validation or test, None without one or with two."""
    found = {_split_of_word(word) for word in _words(name)} - {None}
    return found.pop() if len(found) == 1 else None


def _words(name: str) -> list[str]:
    joined = _JOINED.sub(lambda match: f" {match[1]}{match[2]} ".lower(), name)
    return [word.lower() for word in _WORD.findall(joined)]


def _split_of_word(word: str) -> str | None:
    return _SPLIT_OF_WORD.get(word, _SPLIT_OF_WORD.get(_ENDINGS.sub("", word)))
