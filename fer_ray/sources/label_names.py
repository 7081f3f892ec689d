"""What the labels and splits of a source mean: names, synonyms, and numbers in the orders of several data sets."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Literal

from fer_ray.emotions import EMOTIONS, NUM_CLASSES, label_of
from fer_ray.errors import DataError
from fer_ray.sources.name_options import NameOptions, is_number, similar_emotion
from fer_ray.sources.split_names import SPLITS, read_splits

NumberOrder = Literal["fer2013.csv", "assumed", "unknown"]
"""The order of label numbers: that of ``fer2013.csv`` by the file's form; the same by assumption, which a note says; or
unknown, as in folder names, so that the user has to give it."""

_ORDERS = {
    "FER-2013, from 0": ",".join(EMOTIONS),
    "RAF-DB, from 1": "surprise,fear,disgust,happy,sad,angry,neutral",
    "AffectNet, from 0": "neutral,happy,sad,surprise,fear,disgust,angry,contempt",
    "CK+ as CSV, from 0": ",".join((*EMOTIONS, "contempt")),
}
_FREQUENT = 0.01  # share of the rows from which on a label or split isn't a typing error
_MOST_LISTED = 12


def label_meanings(
    counts: Mapping[tuple[str, str], int], options: NameOptions, source: str, number_order: NumberOrder
) -> tuple[dict[str, int | str], list[str]]:
    """Decide what the labels of a source mean.

    Args:
        counts: rows by split and ``label_key``.
        options: what the user says about names.
        source: name of the source, for messages.
        number_order: of label numbers where the options give no order.

    Returns:
        By key the label (0 to 6, csv order), or the reason why rows have none; and notes for the user.

    Raises:
        DataError: the numbers can't be in that order, or a split has unknown labels and an emotion without a row.
    """
    keys = Counter[str]()
    for (_, key), count in counts.items():
        keys[key] += count
    found = {key: options.label_of(key) for key in keys}
    meanings: dict[str, int | str] = {key: _unknown(key) if label is None else label for key, label in found.items()}
    unknown, notes = {key for key, label in found.items() if label is None}, list[str]()
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
        rows = sum(keys[key] for key in unknown)
        notes.append(f"{rows:,} rows are left out because their labels aren't emotions: {_listed(unknown, keys)}.")
    return meanings, notes


def split_meanings(counts: Mapping[str, int], options: NameOptions, source: str) -> dict[str, str | None]:
    """Decide which split each value of a column of splits means, None where it means none.

    Raises:
        DataError: many rows have a value that means none.
    """
    meanings = read_splits(counts, options.splits)
    total = sum(counts.values())
    lost = [name for name, split in meanings.items() if split is None and _is_frequent(counts[name], total)]
    if lost:
        listed = ", ".join(f"'{name}' ({counts[name]:,} rows)" for name in lost)
        remedy = f"Name the split by --splits '{lost[0]}=SPLIT'" if lost[0] else "Fill the column, or remove it"
        raise DataError(f"{source}: unknown splits {listed}; expected {', '.join(SPLITS)}. {remedy}.")
    return meanings


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
    if is_open or is_from_1 or _is_frequent(max(beyond.values(), default=0), rows):
        known = "; ".join(f"{data_set}: --labels {names}" for data_set, names in _ORDERS.items())
        wrong = f"not {first} to {last} in the order of {'--labels' if order else 'FER-2013'}"
        why = "in an unknown order" if is_open else wrong
        raise DataError(f"{source}: its labels are the numbers {found}, {why}. Give the names in their order. {known}.")
    expected = f"expected {first} to {last} or one of {', '.join(EMOTIONS)}"
    meanings: dict[int, int | str] = {}
    for number in numbers:
        name = names[number - first] if first <= number <= last else None
        label = None if name is None else label_of(name)
        why = f"emotion '{number}', {expected}" if name is None else f"{name} ({number}) isn't one of the emotions"
        meanings[number] = why if label is None else label
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=first))
    if not order and 0 in numbers and number_order == "fer2013.csv":
        return meanings, []
    note = f"Label numbers are read in {'the order of --labels' if order else 'csv order'}: {listed}."
    if not order:
        note += " --labels gives another order."
        note += "" if 0 in numbers else " No row has the number 0: if the numbers start at 1, this order is wrong."
    return meanings, [note]


def _require_no_lost_class(
    counts: Mapping[tuple[str, str], int], meanings: Mapping[str, int | str], unknown: set[str], source: str
) -> None:
    labels: dict[str, set[int]] = defaultdict(set)
    unknown_counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (split, key), count in counts.items():
        meaning = meanings[key]
        if isinstance(meaning, int):
            labels[split].add(meaning)
        elif key in unknown:
            unknown_counts[split][key] += count
    problems = []
    for split, keys in unknown_counts.items():
        missing = [name for label, name in enumerate(EMOTIONS) if label not in labels[split]]
        if missing:
            example = next(iter(keys))
            emotion = similar_emotion(example) or "EMOTION"
            problems.append(
                f"{source}: {split} has no row of {', '.join(missing)}, but rows with unknown labels:"
                f" {_listed(set(keys), keys)}. Give their meaning by --labels '{example}={emotion}', or leave them out"
                " by --allow-unknown."
            )
    if problems:
        raise DataError(problems)


def _listed(keys: set[str], counts: Mapping[str, int]) -> str:
    """List unknown labels, the most frequent first, each with its rows and the emotion of a similar spelling."""
    often = sorted(keys, key=lambda key: (-counts[key], key))
    texts = [
        f"{key} {counts[key]:,}" + (f" ({emotion}?)" if (emotion := similar_emotion(key)) else "")
        for key in often[:_MOST_LISTED]
    ]
    return ", ".join(texts) + (f" and {len(often) - _MOST_LISTED:,} more" if len(often) > _MOST_LISTED else "")


def _is_frequent(count: int, rows: int) -> bool:
    return count >= max(2, _FREQUENT * rows)


def _unknown(key: str) -> str:
    return f"emotion '{key}', expected 0 to {NUM_CLASSES - 1} or one of {', '.join(EMOTIONS)}"
