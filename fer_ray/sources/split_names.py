"""What splits are called in the wild, and what that makes of folders and files that lie side by side.

A split is read from a word within a name, as in ``val_set``, ``FER2013Valid`` or ``images for validation``. ``dev`` is
validation. So are ``eval`` and ``holdout``, unless a neighbour is called validation: that leaves them the test.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, MutableSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from fer_ray.errors import DataError

SPLITS = ("train", "validation", "test")


_EVAL, _HOLDOUT = "eval", "holdout"  # validation or test: the neighbours tell
_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "validate", "validating", "dev", "devel", "development", "publictest"),
    "test": ("test", "testing", "tests", "tst", "privatetest"),
    _EVAL: ("eval", "evaluation"),
    _HOLDOUT: ("holdout",),
}
_SPLIT_OF_WORD = {word: split for split, words in _WORDS.items() for word in words}
_ENDINGS = re.compile(r"(?:sets?|data|dataset|images?|imgs?|faces|files|splits?|samples|photos|pics)$")
_JOINED = re.compile(r"(public|private|hold)[\W_]*(test|out)", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of CamelCase too
_NEUTRAL = re.compile(
    "(fer|ferplus|plus|rafdb|raf|db|affectnet|ck|kdef|jaffe|faces?|facial|expressions?|emotions?|images?|imgs?|data"
    "|dataset|sets?|split|folder|photos|pictures|pics|files|samples|aligned|basic|official|original)$"
)
_Meaning = Mapping[tuple[str, ...], Mapping[str, str | None]]  # by parent folder, then by name
_SHOWN = 8
_MOST_SPLITS = 4  # more folders than that, none called like a split, are persons or sources


@dataclass(frozen=True)
class Given:
    """The splits that the caller gives to names.

    Attributes:
        patterns: of names, case aside, with the split of each; they come before any word.
        used: those that a name has matched so far.
    """

    patterns: Mapping[str, str] = field(default_factory=dict)
    used: MutableSet[str] = field(default_factory=set)

    def split_of(self, name: str) -> str | None:
        for pattern, split in self.patterns.items():
            if fnmatchcase(name.strip().lower(), pattern.lower()):
                self.used.add(pattern)
                return split
        return None


NOTHING = Given()


class Place(NamedTuple):
    """Where files lie.

    Attributes:
        names: of the folders from the root on; where files may be called like splits too, the file's is the last.
        label_at: position of the folder that is named after a label; the length of ``names`` where there is none.
    """

    names: tuple[str, ...]
    label_at: int


def read_splits(names: Iterable[str], given: Given = NOTHING) -> dict[str, str | None]:
    """Return the split that each of several neighbouring names means, None for one that says none."""
    found = {name: given.split_of(name) or _split_of_words(name) for name in names}
    said = set(found.values())
    for name, split in found.items():
        if split == _HOLDOUT:
            found[name] = "test" if "validation" in said or (_EVAL in said and "test" not in said) else "validation"
        elif split == _EVAL:
            found[name] = "test" if "validation" in said else "validation"
    return found


def label_words(name: str) -> list[str]:
    """Return the words of a name that may be a label, in lower case: those that say no split and not just ``faces``."""
    return [word for word in _words(name) if not _NEUTRAL.match(word) and _split_of_word(word) is None]


def split_of_root(path: Path, given: Given, is_table: bool = False) -> tuple[str | None, list[str]]:
    """Return the split that the name of a whole source means, and what is to be said about that.

    Of a folder or .zip any word counts, also of what a link leads to. Of a table the folder around it counts, where no
    other word is in its name.
    """
    names = [path.stem if path.is_file() else path.name, Path(os.path.realpath(path)).name]
    if is_table:
        names = [] if label_words(path.parent.name) else [path.parent.name]
    said = next((split for split in map(given.split_of, names) if split), None)
    name, split = next(((name, split) for name in names if (split := read_splits([name])[name])), ("", None))
    note = f"By the name {name}, all that says no split itself is {split}. --splits '{name}=train' would make it train."
    return said or split, [note] if not said and split not in (None, "train") and label_words(name) else []


def splits_of_places(places: Collection[Place], given: Given, where: str) -> tuple[dict[Place, str | None], list[str]]:
    """Return the split that each place means, None where no name says one, and what is to be said about them.

    The deepest folder above the label decides, unless a higher one has a neighbour of another split; without one there,
    the deepest below the label, or else a word in the label's own folder, as in ``train_happy``.

    Args:
        places: of all files of a source.
        given: what the caller says.
        where: name of the source, for messages.

    Raises:
        DataError: of names side by side some are called like splits and one is not, or so few that they may be splits
            are all called otherwise.
    """
    neighbours: dict[tuple[str, ...], set[str]] = defaultdict(set)
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for names, label_at in places:
        for at, name in enumerate(names):
            (labels if at == label_at else neighbours)[names[:at]].add(name)
    meaning = {parent: read_splits(sorted(names), given) for parent, names in neighbours.items()}
    of_labels = {parent: read_splits(sorted(names)) for parent, names in labels.items()}
    splits, overridden, is_below = dict[Place, str | None](), set[str](), False
    for place in places:
        named = [at for at in range(len(place.names)) if at != place.label_at and _at(meaning, place, at)]
        chosen = _deciding(meaning, place, named)
        if chosen is None:
            own = _at(of_labels, place, place.label_at) if place.label_at < len(place.names) else None
            splits[place] = own
            continue
        splits[place] = split = _at(meaning, place, chosen)
        is_below |= chosen > place.label_at
        overridden |= {place.names[at] for at in named if at > chosen and _at(meaning, place, at) != split}
    _require_all_named(splits, neighbours, is_below, where)
    listed = ", ".join(sorted(overridden)[:_SHOWN])
    note = f"Folders called {listed} lie within a split: they are taken for no splits, but for persons or the like."
    return splits, [note] if overridden else []


def _deciding(meaning: _Meaning, place: Place, named: list[int]) -> int | None:
    above = [at for at in named if at < place.label_at]
    # Of persons' folders within a split, one may be called like another split.
    while len(above) > 1 and None in meaning[place.names[: above[-1]]].values():
        above.pop()
    told_apart = [at for at in above if len(set(meaning[place.names[:at]].values()) - {None}) > 1]
    return next(iter(told_apart), above[-1]) if above else max(named, default=None)


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
    """Find neighbours right above or below the labels, as few as splits, of which none is called like one."""
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    below: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for names, label_at in splits:
        folder = names[:label_at]
        labels[folder].update(names[label_at : label_at + 1] or ("", *folder[-1:]))  # a file holds labels of all kinds
        if label_at < len(names):
            below[names[: label_at + 1]].update(names[label_at + 1 : label_at + 2])
    few = {parent: names for parent, names in neighbours.items() if 2 <= len(names) <= _MOST_SPLITS}
    problems = {
        _problem(where, parent, sorted(names), sorted(names)[0])
        for parent, names in few.items()
        if all(len(labels[*parent, name]) > 1 for name in names)
    }
    first = next(iter(below.values()), set())
    if len(below) > 1 and 2 <= len(first) <= _MOST_SPLITS and all(names == first for names in below.values()):
        problems.add(_problem(where, next(iter(below)), sorted(first), min(first)))
    return problems


def _problem(where: str, parent: tuple[str, ...], names: list[str], unknown: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    inside = f" in {'/'.join(parent)}" if parent else ""
    return (
        f"{where}: side by side{inside} are {shown}, and {unknown} is called like no split. Say what it is by"
        f" --splits '{unknown}=SPLIT' (train, validation or test; * stands for any text), or take it away."
    )


def _split_of_words(name: str) -> str | None:
    """Return the split that a name's words mean, ``_EVAL`` or ``_HOLDOUT`` left open; None without one or with two."""
    found = {_split_of_word(word) for word in _words(name)} - {None}
    return found.pop() if len(found) == 1 else None


def _words(name: str) -> list[str]:
    joined = _JOINED.sub(lambda match: f" {match[1]}{match[2]} ".lower(), name)
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", joined)]
    # A word as TRAINset is one; FERTrain is two, of which one says something.
    return [
        part
        for run, word in zip(re.findall(r"[^\W\d_]+", joined), words, strict=True)
        for part in ([word] if _split_of_word(word) else [piece.lower() for piece in _WORD.findall(run)] or [word])
    ]


def _split_of_word(word: str) -> str | None:
    return _SPLIT_OF_WORD.get(word, _SPLIT_OF_WORD.get(_ENDINGS.sub("", word)))
