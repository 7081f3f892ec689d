"""The splits that names of folders and files mean.

A word within a name means a split, as in ``val_set``, ``FER2013Valid`` or ``images for validation``. ``dev`` is
validation. ``eval`` and ``holdout`` are validation too, unless a sibling is: then they are the test.
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

_EVAL, _HOLDOUT = "eval", "holdout"  # validation or test, by the siblings
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
_Names = Mapping[tuple[str, ...], set[str]]  # by parent folder
_Meanings = Mapping[tuple[str, ...], Mapping[str, str | None]]  # by parent folder, then by name
_MOST_LISTED = 8
_FREQUENT = 0.01  # share of the rows
_MOST_SPLITS = 4  # more siblings than that, none named after a split, are persons or sources


@dataclass(frozen=True)
class SplitPatterns:
    """The splits that the user gives to names, by pattern, whatever the case; a pattern comes before any word."""

    patterns: Mapping[str, str] = field(default_factory=dict)
    used: MutableSet[str] = field(default_factory=set)  # the patterns that have matched a name so far

    def split_of(self, name: str) -> str | None:
        for pattern, split in self.patterns.items():
            if fnmatchcase(name.strip().lower(), pattern.lower()):
                self.used.add(pattern)
                return split
        return None


NO_PATTERNS = SplitPatterns()


class TreePath(NamedTuple):
    """A folder of a tree, or a table, by the names below the root, outermost first."""

    names: tuple[str, ...]
    label_at: int  # position of the name that is a label; the length of ``names`` without one


def read_splits(names: Iterable[str], patterns: SplitPatterns = NO_PATTERNS) -> dict[str, str | None]:
    """Return the split that each of several sibling names means, None for a name without a split."""
    found = {name: patterns.split_of(name) or _split_of_words(name) for name in names}
    said = set(found.values())
    for name, split in found.items():
        if split == _HOLDOUT:
            found[name] = "test" if "validation" in said or (_EVAL in said and "test" not in said) else "validation"
        elif split == _EVAL:
            found[name] = "test" if "validation" in said else "validation"
    return found


def split_meanings(counts: Mapping[str, int], patterns: SplitPatterns, source: str) -> dict[str, str | None]:
    """Return the split that each value of a column of splits means, None where it means none; from rows by value.

    ``DataError`` if many rows have a value that means none.
    """
    meanings = read_splits(counts, patterns)
    total = sum(counts.values())
    lost = [name for name, split in meanings.items() if split is None and is_frequent(counts[name], total)]
    if lost:
        listed = ", ".join(f"'{name}' ({counts[name]:,} rows)" for name in lost)
        remedy = f"Name the split by --splits '{lost[0]}=SPLIT'" if lost[0] else "Fill the column, or remove it"
        raise DataError(f"{source}: unknown splits {listed}; expected {', '.join(SPLITS)}. {remedy}.")
    return meanings


def is_frequent(count: int, rows: int) -> bool:
    """Return whether so many rows have a label or split that it isn't a typing error."""
    return count >= max(2, _FREQUENT * rows)


def label_words(name: str) -> list[str]:
    """Return the words of a name that may be a label, in lower case: neither a split nor a word such as ``faces``."""
    return [word for word in _words(name) if not _NEUTRAL.match(word) and _split_of_word(word) is None]


def split_of_root(path: Path, patterns: SplitPatterns, is_table: bool = False) -> tuple[str | None, list[str]]:
    """Return the split that the name of a whole source means, and notes for the user.

    The name of a folder or .zip counts, and of a link's target. For a table the name of its folder counts, if it has no
    other word.
    """
    names = [path.stem if path.is_file() else path.name, Path(os.path.realpath(path)).name]
    if is_table:
        names = [] if label_words(path.parent.name) else [path.parent.name]
    by_pattern = next((split for split in map(patterns.split_of, names) if split), None)
    name, split = next(((name, split) for name in names if (split := read_splits([name])[name])), ("", None))
    note = f"By the name {name}, images without a split of their own are {split}. --splits '{name}=train' changes that."
    return by_pattern or split, [note] if not by_pattern and split not in (None, "train") and label_words(name) else []


def splits_of_paths(
    paths: Collection[TreePath], patterns: SplitPatterns, source: str
) -> tuple[dict[TreePath, str | None], list[str]]:
    """Return the split that each path means, None where no name means one, and notes for the user.

    The deepest folder above the label decides, unless a higher folder has a sibling of another split. Without a split
    above the label, the deepest folder below the label decides, then a word in the label's own folder, as in
    ``train_happy``.

    Raises:
        DataError: of several siblings some mean a split and one doesn't, or none does and they are as few as splits.
    """
    siblings: dict[tuple[str, ...], set[str]] = defaultdict(set)
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for names, label_at in paths:
        for at, name in enumerate(names):
            (labels if at == label_at else siblings)[names[:at]].add(name)
    meanings = {parent: read_splits(sorted(names), patterns) for parent, names in siblings.items()}
    of_labels = {parent: read_splits(sorted(names)) for parent, names in labels.items()}
    splits, overridden, is_below = dict[TreePath, str | None](), set[str](), False
    for path in paths:
        names, label_at = path
        means = [None if at == label_at else meanings[names[:at]][name] for at, name in enumerate(names)]
        named = [at for at, split in enumerate(means) if split]
        chosen = _deciding(meanings, path, named)
        if chosen is None:
            splits[path] = of_labels[names[:label_at]][names[label_at]] if label_at < len(names) else None
            continue
        splits[path] = means[chosen]
        is_below |= chosen > label_at
        overridden |= {names[at] for at in named if at > chosen and means[at] != means[chosen]}
    if problems := _unclear(splits, siblings, is_below, source) or _unnamed(splits, siblings, labels, source):
        raise DataError(sorted(problems))
    listed = ", ".join(sorted(overridden)[:_MOST_LISTED])
    note = f"Folders called {listed} lie within a split. They are read as persons or the like, not as splits."
    return splits, [note] if overridden else []


def _deciding(meanings: _Meanings, path: TreePath, named: list[int]) -> int | None:
    above = [at for at in named if at < path.label_at]
    # A person's folder within a split may have the name of another split.
    while len(above) > 1 and None in meanings[path.names[: above[-1]]].values():
        above.pop()
    told_apart = [at for at in above if len(set(meanings[path.names[:at]].values()) - {None}) > 1]
    return next(iter(told_apart), above[-1]) if above else max(named, default=None)


def _unclear(splits: Mapping[TreePath, str | None], siblings: _Names, is_below: bool, source: str) -> set[str]:
    """Find folders that mean no split beside some that do."""
    named = {path.names[: at + 1] for path, split in splits.items() if split for at in range(len(path.names))}
    problems = set()
    for names, label_at in (path for path, split in splits.items() if not split):
        for at, name in enumerate(names):
            beside = siblings[names[:at]]
            if at != label_at and any((*names[:at], other) in named for other in beside if other != name):
                problems.add(_problem(source, names[:at], sorted(beside), name))
        if is_below and label_at < len(names) and not problems:
            problems.add(
                f"{source}: some folders named after emotions hold folders named after splits, and images of"
                f" {'/'.join(names)} are in none of these. Move the images into one of them."
            )
    return problems


def _unnamed(splits: Mapping[TreePath, str | None], siblings: _Names, labels: _Names, source: str) -> set[str]:
    """Find siblings right above or below the labels that are as few as splits, if nothing means a split."""
    if any(splits.values()):
        return set()
    problems = {
        _problem(source, parent, sorted(names), min(names))
        for parent, names in siblings.items()
        if 2 <= len(names) <= _MOST_SPLITS and all(len(labels.get((*parent, name), ())) > 1 for name in names)
    }
    below = {names[: at + 1]: siblings.get(names[: at + 1], set()) for names, at in splits if at < len(names)}
    first = next(iter(below.values()), set())
    if len(below) > 1 and 2 <= len(first) <= _MOST_SPLITS and all(names == first for names in below.values()):
        problems.add(_problem(source, next(iter(below)), sorted(first), min(first)))
    return problems


def _problem(source: str, parent: tuple[str, ...], names: list[str], unknown: str) -> str:
    listed = ", ".join(names[:_MOST_LISTED])
    listed += f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    inside = f" in {'/'.join(parent)}" if parent else ""
    return (
        f"{source}: side by side{inside} are {listed}, and {unknown} means no split. Name the split by"
        f" --splits '{unknown}=SPLIT' (train, validation or test; * matches any text), or remove {unknown}."
    )


def _split_of_words(name: str) -> str | None:
    """Return the split, ``_EVAL`` or ``_HOLDOUT`` that a name's words mean; None without one or with several."""
    found = {_split_of_word(word) for word in _words(name)} - {None}
    return found.pop() if len(found) == 1 else None


def _words(name: str) -> list[str]:
    words = list[str]()
    for run in re.findall(r"[^\W\d_]+", _JOINED.sub(lambda match: f" {match[1]}{match[2]} ".lower(), name)):
        # TRAINset is one word; FERTrain is two, and one of them is a split.
        words += [run] if _split_of_word(run.lower()) else _WORD.findall(run) or [run]
    return [word.lower() for word in words]


def _split_of_word(word: str) -> str | None:
    return _SPLIT_OF_WORD.get(word, _SPLIT_OF_WORD.get(_ENDINGS.sub("", word)))
