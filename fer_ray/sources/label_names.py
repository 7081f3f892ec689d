"""What labels are called in the wild: names, their synonyms, and numbers in the orders of several data sets."""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fer_ray.emotions import EMOTIONS, NUM_CLASSES, SYNONYMS, label_of
from fer_ray.errors import DataError, UsageError
from fer_ray.sources.split_names import SPLITS, Given, label_words, read_splits

LABEL_COLUMNS = ("emotion", "label", "labels", "emotions", "expression", "class", "target")
"""Names of a column of labels, in lower case."""

SPLIT_COLUMNS = ("usage", "split", "subset", "partition", "data_split")
"""Names of a column of splits, in lower case; the first that is there is taken."""

_BARE_COLUMNS = frozenset(
    (*SPLIT_COLUMNS, "id", "image_id", "index", "", "unnamed: 0", "path", "file", "name", "filename")
)

Numbers = Literal["in FER-2013's own form", "in its order unless told", "in any order"]
"""What numbers of labels are: in a file like ``fer2013.csv``; in another table; names of folders."""

_ORDERS = {
    "FER-2013, from 0": ",".join(EMOTIONS),
    "RAF-DB, from 1": "surprise,fear,disgust,happy,sad,angry,neutral",
    "AffectNet, from 0": "neutral,happy,sad,surprise,fear,disgust,angry,contempt",
    "CK+ as CSV, from 0": ",".join((*EMOTIONS, "contempt")),
}
_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_FREQUENT = 0.01  # share of rows from which on a label or split is no slip of the pen
_KINDS_SHOWN = 12
_NEAR = 0.65  # of difflib's ratio
_MOST_SPLITS = 6  # different texts in a column of splits


@dataclass(frozen=True)
class Naming:
    """What the caller says about names in a source.

    Attributes:
        order: label names by number, the first being 0 or 1; empty for FER-2013's order.
        labels: label names by what is written, as ``label_key`` gives it.
        splits: splits by patterns of names.
        allow_unknown: leave out rows whose labels are no emotion, whatever they leave of a class.
        used: the keys of ``labels`` that a label was so far, and ``order`` itself.
    """

    order: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    splits: Given = field(default_factory=Given)
    allow_unknown: bool = False
    used: MutableSet[object] = field(default_factory=set)

    def label_of(self, key: str) -> int | None:
        """Return the label (0 to 6, csv order) that a name means, None for a number and for what is no emotion."""
        if key in self.labels:
            self.used.add(key)
            return label_of(self.labels[key])
        words = label_words(key)
        return label_of(words[0] if len(words) == 1 else key)  # as in 3_happy and train_happy

    def require_used(self, where: str) -> None:
        """Check that all that the caller said was about something.

        Raises:
            UsageError: it wasn't.
        """
        problems = [f"--labels {key}: no label of {where} is so." for key in self.labels if key not in self.used]
        problems += [
            f"--splits {pattern}: nothing in {where} is called so."
            for pattern in self.splits.patterns
            if pattern not in self.splits.used
        ]
        if self.order and self.order not in self.used:
            problems.append(f"--labels {','.join(self.order)}: the labels of {where} are no numbers.")
        if problems:
            raise UsageError(problems)


def read_naming(labels: str | None, splits: str | None, allow_unknown: bool = False) -> Naming:
    """Read the texts of ``--labels`` and ``--splits``.

    Args:
        labels: names in the order of numbers, ``surprise,fear,…``, or pairs ``WRITTEN=EMOTION``, between commas.
        splits: pairs ``NAME=SPLIT`` between commas.
        allow_unknown: as in ``Naming``.

    Raises:
        UsageError: one of them is not of that form; all problems at once.
    """
    problems: list[str] = []
    order: tuple[str, ...] = ()
    pairs: dict[str, str] = {}
    if labels is not None and "=" in labels:
        pairs = _pairs(labels, "--labels", "joy=happy", problems)
        wrong = [name for name in pairs.values() if label_of(name) is None]
        problems += [f"--labels: {name} is no emotion. Name one of {', '.join(EMOTIONS)}." for name in wrong]
    elif labels is not None:
        order = tuple(name.strip().lower() for name in labels.split(","))
        known = [label for name in order if (label := label_of(name)) is not None]
        if len(known) < 2 or len(set(known)) < len(known):
            problems.append(
                f"--labels {labels}: expected each emotion once, in the order of its numbers: surprise,fear,…"
            )
        wrong = [f"{name} ({near}?)" for name in order if label_of(name) is None and (near := _near(name))]
        problems += [f"--labels: {', '.join(wrong)} is no emotion. Spell it as one." for _ in wrong[:1]]
    chosen = _pairs(splits, "--splits", "learning=train", problems) if splits is not None else {}
    for name, split in chosen.items():
        if split not in SPLITS:
            problems.append(f"--splits {name}={split}: expected {', '.join(SPLITS)} after the equals sign.")
    if problems:
        raise UsageError(problems)
    return Naming(order, pairs, Given(chosen), allow_unknown)


def require_labels(columns: Iterable[str], image: str, where: str, split: str | None) -> None:
    """Check a table without a column of labels: that it may be meant so, as the competition's ``test.csv`` is.

    Args:
        columns: its names.
        image: the one of pictures.
        where: name of the file, for messages.
        split: that the file's name says.

    Raises:
        DataError: another column may be that of labels, or its rows are to be learned from.
    """
    others = [name for name in columns if name.strip().lower() not in (_BARE_COLUMNS | {image.lower()})]
    if others or split == "train":
        raise DataError(
            f"{where}: its columns are {', '.join(columns)}; none is called {', '.join(LABEL_COLUMNS)}. Call the one of"
            " labels so; or, if the rows are unlabelled ones for the test, remove the columns that they don't need."
        )


def find_label(columns: Sequence[str], where: str) -> str | None:
    """Return the column of labels.

    Raises:
        DataError: several may be it, which may say different things.
    """
    by_name = {name.strip().lower(): name for name in columns}
    found = [by_name[name] for name in LABEL_COLUMNS if name in by_name]
    if found and found[0].lower() != "emotion":
        found += [
            name
            for key, name in by_name.items()
            if key not in LABEL_COLUMNS and {"label", "emotion", "expression"} & set(re.findall(r"[a-z]+", key))
        ]
    if len(found) > 1:
        raise DataError(f"{where}: {' and '.join(found)} may each hold the labels. Leave one of them in the file.")
    return found[0] if found else None


def require_no_split_column(values: Mapping[str, Collection[str]], where: str) -> None:
    """Check columns that aren't read: that none of them seems to say splits.

    Args:
        values: by name some of the texts in it.
        where: name of the file, for messages.

    Raises:
        DataError: one does, by its name or its texts.
    """
    for name, texts in values.items():
        by_text = 0 < len(texts) <= _MOST_SPLITS and all(read_splits([text])[text] for text in texts)
        if by_text or read_splits([name])[name]:
            shown = ", ".join(sorted(texts)[:_MOST_SPLITS])
            raise DataError(
                f"{where}: its column {name} ({shown}) seems to say splits, which are read from a column that is called"
                f" {', '.join(SPLIT_COLUMNS)}. Call it so, with names such as train and test, or take it away."
            )


def label_key(text: str) -> str:
    """Return a written label without what makes no difference: case, blanks, a number's zeros and its ``.0``."""
    text = text.strip().lower()
    number = _NUMBER.fullmatch(text)
    return str(int(number[1])) if number else text


def is_number(text: str) -> bool:
    """Say whether a label is written as a whole number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def label_meanings(
    counts: Mapping[tuple[str, str], int], naming: Naming, where: str, numbers_are: Numbers
) -> tuple[dict[str, int | str], list[str]]:
    """Decide what the written labels of a source mean.

    Args:
        counts: rows by split and ``label_key``.
        naming: what the caller says.
        where: name of the source, for messages.
        numbers_are: what they are where the caller doesn't say an order.

    Returns:
        By key the label (0 to 6, csv order) or why rows have none; and what is to be said about them.

    Raises:
        DataError: numbers that can't be in the order, or labels that are no emotion where a class has no row.
    """
    keys = Counter[str]()
    for (_, key), count in counts.items():
        keys[key] += count
    found = {key: naming.label_of(key) for key in keys}
    meanings: dict[str, int | str] = {key: _no_emotion(key) if label is None else label for key, label in found.items()}
    unknown, notes = {key for key, label in found.items() if label is None}, list[str]()
    # Beside folders that are named after emotions, one that is a number is no label.
    is_beside_names = numbers_are == "in any order" and len(unknown) < len(keys) and not naming.order
    is_told = is_beside_names or any(map(is_number, naming.labels))
    if not is_told and (numbers := {int(key): keys[key] for key in filter(is_number, keys)}):
        of_numbers, notes = _number_meanings(numbers, naming.order, where, sum(keys.values()), numbers_are)
        naming.used.add(naming.order)
        meanings |= {str(number): meaning for number, meaning in of_numbers.items()}
        unknown -= {str(number) for number in numbers}
    if unknown:
        if not naming.allow_unknown:
            _require_no_lost_class(counts, meanings, unknown, where)
        rows = sum(keys[key] for key in unknown)
        notes.append(f"{rows:,} rows are left out, as their labels are no emotion: {_listed(unknown, keys)}.")
    return meanings, notes


def split_meanings(counts: Mapping[str, int], naming: Naming, where: str) -> dict[str, str | None]:
    """Decide which split each name in a column of splits means, None where it says none.

    Raises:
        DataError: many rows have a name that says none.
    """
    meanings = read_splits(counts, naming.splits)
    total = sum(counts.values())
    lost = [name for name, split in meanings.items() if split is None and _is_frequent(counts[name], total)]
    if lost:
        listed = ", ".join(f"'{name}' ({counts[name]:,} rows)" for name in lost)
        remedy = f"Say what they are by --splits '{lost[0]}=SPLIT'" if lost[0] else "Fill the column, or take it away"
        raise DataError(f"{where}: the splits {listed} are called like none of {', '.join(SPLITS)}. {remedy}.")
    return meanings


def _number_meanings(
    numbers: Mapping[int, int], order: tuple[str, ...], where: str, rows: int, numbers_are: Numbers
) -> tuple[dict[int, int | str], list[str]]:
    names, first = order or EMOTIONS, 0
    found = ", ".join(map(str, sorted(numbers)[:_KINDS_SHOWN]))
    if order and 0 not in numbers:
        first = 1
        if len(order) not in numbers:
            raise DataError(
                f"{where}: its label numbers are {found}, without 0 and {len(order)}, so that --labels doesn't tell"
                f" whether the first name is 0 or 1. Give numbers too: --labels 1={order[0]},2={order[1]},…"
            )
    last = first + len(names) - 1
    beyond = {number: count for number, count in numbers.items() if not first <= number <= last}
    is_open = not order and numbers_are == "in any order"
    is_from_1 = not order and 0 not in numbers and (max(numbers) > last or set(numbers) == set(range(1, last + 1)))
    if is_open or is_from_1 or _is_frequent(max(beyond.values(), default=0), rows):
        known = "; ".join(f"{data_set}: --labels {names}" for data_set, names in _ORDERS.items())
        wrong = f"not {first} to {last} in the order of {'--labels' if order else 'FER-2013'}"
        why = "in an order that nothing tells" if is_open else wrong
        raise DataError(f"{where}: its labels are the numbers {found}, {why}. Name them in their order. {known}.")
    expected = f"expected {first} to {last} or one of {', '.join(EMOTIONS)}"
    meanings: dict[int, int | str] = {}
    for number in numbers:
        name = names[number - first] if first <= number <= last else None
        label = None if name is None else label_of(name)
        why = f"emotion '{number}', {expected}" if name is None else f"{name} ({number}) is none of the seven emotions"
        meanings[number] = why if label is None else label
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=first))
    if not order and 0 in numbers and numbers_are == "in FER-2013's own form":
        return meanings, []
    note = f"The label numbers are taken in {'the order of --labels' if order else 'csv order'}: {listed}."
    if not order:
        note += " Another order is given by --labels."
        note += "" if 0 in numbers else " No row is numbered 0: if the first number is 1, this order is wrong."
    return meanings, [note]


def _require_no_lost_class(
    counts: Mapping[tuple[str, str], int], meanings: Mapping[str, int | str], unknown: set[str], where: str
) -> None:
    labels: dict[str, set[int]] = defaultdict(set)
    strange: dict[str, Counter[str]] = defaultdict(Counter)
    for (split, key), count in counts.items():
        meaning = meanings[key]
        if isinstance(meaning, int):
            labels[split].add(meaning)
        elif key in unknown:
            strange[split][key] += count
    problems = []
    for split, keys in strange.items():
        missing = [name for label, name in enumerate(EMOTIONS) if label not in labels[split]]
        if missing:
            example = next(iter(keys))
            emotion = _near(example) or "EMOTION"
            problems.append(
                f"{where}: {split} has no row of {', '.join(missing)}, but rows whose label is no emotion:"
                f" {_listed(set(keys), keys)}. Say what these mean by --labels '{example}={emotion}', or leave them out"
                " by --allow-unknown."
            )
    if problems:
        raise DataError(problems)


def _listed(keys: set[str], counts: Mapping[str, int]) -> str:
    """List labels that are no emotion: each with its rows and the emotion that it may mean."""
    often = sorted(keys, key=lambda key: (-counts[key], key))
    texts = [f"{key} {counts[key]:,}" + (f" ({near}?)" if (near := _near(key)) else "") for key in often[:_KINDS_SHOWN]]
    return ", ".join(texts) + (f" and {len(often) - _KINDS_SHOWN:,} more" if len(often) > _KINDS_SHOWN else "")


def _near(name: str) -> str | None:
    """Return the emotion that a word within a name is spelt nearly like."""
    for word in re.findall(r"[^\W\d_]+", name):
        if close := difflib.get_close_matches(word, [*EMOTIONS, *SYNONYMS], 1, _NEAR):
            return SYNONYMS.get(close[0], close[0])
    return None


def _is_frequent(count: int, rows: int) -> bool:
    return count >= max(2, _FREQUENT * rows)


def _no_emotion(key: str) -> str:
    return f"emotion '{key}', expected 0 to {NUM_CLASSES - 1} or one of {', '.join(EMOTIONS)}"


def _pairs(text: str, option: str, example: str, problems: list[str]) -> dict[str, str]:
    pairs = dict[str, str]()
    for part in text.split(","):
        written, equals, meaning = (piece.strip() for piece in part.partition("="))
        if not (written and equals and meaning):
            problems.append(f"{option}: '{part.strip()}' is no pair such as {example}.")
        elif pairs.setdefault(label_key(written), meaning.lower()) != meaning.lower():
            problems.append(f"{option}: {written} is there twice, with different meanings.")
    return pairs
