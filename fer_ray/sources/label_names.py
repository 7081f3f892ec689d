"""What labels mean: names, synonyms, numbers in the orders of several data sets, and what the user says about them."""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, MutableSet
from dataclasses import dataclass, field
from typing import Literal

from fer_ray.emotions import EMOTIONS, NUM_CLASSES, SYNONYMS, label_of
from fer_ray.errors import DataError, Problems, UsageError
from fer_ray.sources.split_names import SPLITS, SplitPatterns, is_frequent, label_words

NumberOrder = Literal["fer2013.csv", "assumed", "unknown"]
"""The order of label numbers: that of ``fer2013.csv`` by the file's form; the same by assumption, which a note says; or
unknown, as in folder names, so that the user has to give it."""

_ORDERS = {
    "FER-2013, from 0": ",".join(EMOTIONS),
    "RAF-DB, from 1": "surprise,fear,disgust,happy,sad,angry,neutral",
    "AffectNet, from 0": "neutral,happy,sad,surprise,fear,disgust,angry,contempt",
    "CK+ as CSV, from 0": ",".join((*EMOTIONS, "contempt")),
}
_MOST_LISTED = 12
_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_SIMILAR = 0.65  # of difflib's ratio


@dataclass(frozen=True)
class NameOptions:
    """What the user says about the names in a source."""

    label_order: tuple[str, ...] = ()  # label names by number, from 0 or 1; empty for FER-2013's order
    labels: Mapping[str, str] = field(default_factory=dict)  # emotion by ``label_key``
    splits: SplitPatterns = field(default_factory=SplitPatterns)
    allow_unknown: bool = False  # leave out rows with unknown labels even if they may be all rows of an emotion
    used: MutableSet[object] = field(default_factory=set)  # the keys of labels and the order that have matched so far

    def label_of(self, key: str) -> int | None:
        """Return the label (0 to 6, csv order) of a name, or None for a number or a name of no emotion."""
        if key in self.labels:
            self.used.add(key)
            return label_of(self.labels[key])
        words = label_words(key)
        return label_of(words[0] if len(words) == 1 else key)  # as in 3_happy and train_happy

    def require_used(self, source: str) -> None:
        """Raise ``UsageError`` that names every option that has matched nothing."""
        unused = [pattern for pattern in self.splits.patterns if pattern not in self.splits.used]
        problems = Problems()
        problems.add(*(f"--labels {key}: {source} has no such label." for key in self.labels if key not in self.used))
        problems.add(*(f"--splits {pattern}: no name in {source} matches." for pattern in unused))
        if self.label_order and self.label_order not in self.used:
            problems.add(f"--labels {','.join(self.label_order)}: the labels of {source} aren't numbers.")
        problems.stop()


def parse_name_options(labels: str | None, splits: str | None, allow_unknown: bool = False) -> NameOptions:
    """Parse the values of ``--labels`` and ``--splits``; ``UsageError`` with all problems if one has another form.

    Labels are names in the order of their numbers, ``surprise,fear,…``, or pairs ``LABEL=EMOTION``; splits are pairs
    ``NAME=SPLIT``; all comma-separated.
    """
    problems: list[str] = []
    order: tuple[str, ...] = ()
    pairs: dict[str, str] = {}
    if labels is not None and "=" in labels:
        pairs = _pairs(labels, "--labels", "joy=happy", problems)
        wrong = [name for name in pairs.values() if label_of(name) is None]
        problems += [f"--labels: {name} isn't an emotion. Name one of {', '.join(EMOTIONS)}." for name in wrong]
    elif labels is not None:
        order = tuple(name.strip().lower() for name in labels.split(","))
        known = [label for name in order if (label := label_of(name)) is not None]
        if len(known) < 2 or len(set(known)) < len(known):
            problems.append(f"--labels {labels}: expected each emotion once, in the order of numbers: surprise,fear,…")
        wrong = [f"{name} ({emotion}?)" for name in order if label_of(name) is None and (emotion := _similar(name))]
        if wrong:
            problems.append(f"--labels: unknown emotion {', '.join(wrong)}. Correct the spelling.")
    by_pattern = _pairs(splits, "--splits", "learning=train", problems) if splits is not None else {}
    for pattern, split in by_pattern.items():
        if split not in SPLITS:
            problems.append(f"--splits {pattern}={split}: expected {', '.join(SPLITS)} after the equals sign.")
    if problems:
        raise UsageError(problems)
    return NameOptions(order, pairs, SplitPatterns(by_pattern), allow_unknown)


def _pairs(text: str, option: str, example: str, problems: list[str]) -> dict[str, str]:
    pairs = dict[str, str]()
    for part in text.split(","):
        name, equals, meaning = (piece.strip() for piece in part.partition("="))
        if not (name and equals and meaning):
            problems.append(f"{option}: '{part.strip()}' isn't a pair such as {example}.")
        elif pairs.setdefault(label_key(name), meaning.lower()) != meaning.lower():
            problems.append(f"{option}: {name} is given twice, with different meanings.")
    return pairs


def label_key(text: str) -> str:
    """Return a label in lower case, without blanks around it and without a number's leading zeros and ``.0``."""
    text = text.strip().lower()
    number = _NUMBER.fullmatch(text)
    return str(int(number[1])) if number else text


def is_number(text: str) -> bool:
    """Return whether a label is a whole number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def _similar(name: str) -> str | None:
    """Return the emotion whose spelling is similar to a name."""
    close = difflib.get_close_matches(name, [*EMOTIONS, *SYNONYMS], 1, _SIMILAR)
    return SYNONYMS.get(close[0], close[0]) if close else None


def label_meanings(
    counts: Mapping[tuple[str, str], int], options: NameOptions, source: str, number_order: NumberOrder
) -> tuple[dict[str, int | str], list[str]]:
    """Decide what the labels of a source mean.

    ``counts`` are rows by split and ``label_key``; ``number_order`` is that of label numbers if the options give none.

    Returns:
        By key the label (0 to 6, csv order), or the reason why rows have none; and notes for the user.

    Raises:
        DataError: the numbers can't be in that order, or a split has unknown labels and an emotion without a row.
    """
    keys = Counter[str]()
    for (_, key), count in counts.items():
        keys[key] += count
    expected = f"expected 0 to {NUM_CLASSES - 1} or one of {', '.join(EMOTIONS)}"
    meanings: dict[str, int | str] = {}
    for key in keys:
        label = options.label_of(key)
        meanings[key] = f"emotion '{key}', {expected}" if label is None else label
    unknown, notes = {key for key, meaning in meanings.items() if isinstance(meaning, str)}, list[str]()
    # Beside folders that are named after emotions, a folder that is a number is not a label.
    is_beside_names = number_order == "unknown" and len(unknown) < len(keys) and not options.label_order
    is_given = is_beside_names or any(map(is_number, options.labels))
    if not is_given and (numbers := {int(key): keys[key] for key in filter(is_number, keys)}):
        of_numbers, notes = _number_meanings(numbers, options.label_order, source, sum(keys.values()), number_order)
        options.used.add(options.label_order)
        meanings |= {str(number): meaning for number, meaning in of_numbers.items()}
        unknown -= {str(number) for number in numbers}
    if unknown:
        if not options.allow_unknown:
            _require_no_lost_class(counts, meanings, unknown, source)
        lost = {key: keys[key] for key in unknown}
        rows = sum(lost.values())
        notes.append(f"{rows:,} rows are left out because their labels aren't emotions: {_listed(lost)}.")
    return meanings, notes


def _number_meanings(
    numbers: Mapping[int, int], order: tuple[str, ...], source: str, rows: int, number_order: NumberOrder
) -> tuple[dict[int, int | str], list[str]]:
    names, first = order or EMOTIONS, 0
    found = ", ".join(map(str, sorted(numbers)[:_MOST_LISTED]))
    if order and 0 not in numbers:
        first = 1
        if len(order) not in numbers:
            raise DataError(
                f"{source}: its label numbers are {found}, without 0 and {len(order)}, so the first name of --labels"
                f" may be 0 or 1. Give the numbers too: --labels 1={order[0]},2={order[1]},…"
            )
    last = first + len(names) - 1
    beyond = {number: count for number, count in numbers.items() if not first <= number <= last}
    is_open = not order and number_order == "unknown"
    is_from_1 = not order and 0 not in numbers and (max(numbers) > last or set(numbers) == set(range(1, last + 1)))
    if is_open or is_from_1 or is_frequent(max(beyond.values(), default=0), rows):
        known = "; ".join(f"{data_set}: --labels {names}" for data_set, names in _ORDERS.items())
        wrong = f"not {first} to {last} in the order of {'--labels' if order else 'FER-2013'}"
        why = "in an unknown order" if is_open else wrong
        raise DataError(f"{source}: its labels are the numbers {found}, {why}. Give the names in their order. {known}.")
    meanings: dict[int, int | str] = {}
    for number in numbers:
        name = "" if number in beyond else names[number - first]
        label, shown = label_of(name), f"'{number}'" + f" ({name})" * bool(name)
        why = f"emotion {shown}, expected {first} to {last} or one of {', '.join(EMOTIONS)}"
        meanings[number] = why if label is None else label
    if not order and 0 in numbers and number_order == "fer2013.csv":
        return meanings, []
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=first))
    note = f"Label numbers are read in {'the order of --labels' if order else 'csv order'}: {listed}."
    if not order:
        note += " --labels gives another order."
        note += " No row has the number 0: if the numbers start at 1, this order is wrong." * (0 not in numbers)
    return meanings, [note]


def _require_no_lost_class(
    counts: Mapping[tuple[str, str], int], meanings: Mapping[str, int | str], unknown: set[str], source: str
) -> None:
    problems = []
    for split in dict.fromkeys(split for split, _ in counts):
        labels = {meanings[key] for of, key in counts if of == split}
        missing = [name for label, name in enumerate(EMOTIONS) if label not in labels]
        found = {key: count for (of, key), count in counts.items() if of == split and key in unknown}
        if found and missing:
            example = next(iter(found))
            problems.append(
                f"{source}: {split} has no row of {', '.join(missing)}, but rows with unknown labels: {_listed(found)}."
                f" Give their meaning by --labels '{example}={_similar(example) or 'EMOTION'}', or leave them out by"
                " --allow-unknown."
            )
    if problems:
        raise DataError(problems)


def _listed(counts: Mapping[str, int]) -> str:
    often = sorted(counts, key=lambda key: (-counts[key], key))
    more = f" and {len(often) - _MOST_LISTED:,} more" if len(often) > _MOST_LISTED else ""
    return ", ".join(f"{key} {counts[key]:,}" for key in often[:_MOST_LISTED]) + more
