"""``--labels``, ``--splits`` and ``--allow-unknown``: what the user says about the names in a source."""

import difflib
import re
from collections.abc import Mapping, MutableSet
from dataclasses import dataclass, field

from fer_ray.emotions import EMOTIONS, SYNONYMS, label_of
from fer_ray.errors import UsageError
from fer_ray.sources.split_names import SPLITS, SplitPatterns, label_words

_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_SIMILAR = 0.65  # of difflib's ratio


@dataclass(frozen=True)
class NameOptions:
    """What the user says about the names in a source.

    Attributes:
        label_order: label names by number, the first number being 0 or 1; empty for FER-2013's order.
        labels: emotion by label, the label as ``label_key`` returns it.
        splits: split by pattern of a name.
        allow_unknown: leave out rows with unknown labels even where they may be all rows of an emotion.
        used: the keys of ``labels``, and ``label_order`` itself, that have matched a label so far.
    """

    label_order: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    splits: SplitPatterns = field(default_factory=SplitPatterns)
    allow_unknown: bool = False
    used: MutableSet[object] = field(default_factory=set)

    def label_of(self, key: str) -> int | None:
        """Return the label (0 to 6, csv order) of a name, or None for a number or a name of no emotion."""
        if key in self.labels:
            self.used.add(key)
            return label_of(self.labels[key])
        words = label_words(key)
        return label_of(words[0] if len(words) == 1 else key)  # as in 3_happy and train_happy

    def require_used(self, source: str) -> None:
        """Check that every option has matched something.

        Raises:
            UsageError: some have not, all at once.
        """
        problems = [f"--labels {key}: {source} has no such label." for key in self.labels if key not in self.used]
        problems += [
            f"--splits {pattern}: no name in {source} matches."
            for pattern in self.splits.patterns
            if pattern not in self.splits.used
        ]
        if self.label_order and self.label_order not in self.used:
            problems.append(f"--labels {','.join(self.label_order)}: the labels of {source} aren't numbers.")
        if problems:
            raise UsageError(problems)


def parse_name_options(labels: str | None, splits: str | None, allow_unknown: bool = False) -> NameOptions:
    """Parse the values of ``--labels`` and ``--splits``.

    Args:
        labels: names in the order of their numbers, ``surprise,fear,…``, or pairs ``LABEL=EMOTION``, comma-separated.
        splits: pairs ``NAME=SPLIT``, comma-separated.
        allow_unknown: as in ``NameOptions``.

    Raises:
        UsageError: a value has another form; all problems at once.
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
            problems.append(
                f"--labels {labels}: expected each emotion once, in the order of its numbers: surprise,fear,…"
            )
        wrong = [
            f"{name} ({emotion}?)" for name in order if label_of(name) is None and (emotion := similar_emotion(name))
        ]
        if wrong:
            problems.append(f"--labels: unknown emotion {', '.join(wrong)}. Correct the spelling.")
    by_pattern = _pairs(splits, "--splits", "learning=train", problems) if splits is not None else {}
    for pattern, split in by_pattern.items():
        if split not in SPLITS:
            problems.append(f"--splits {pattern}={split}: expected {', '.join(SPLITS)} after the equals sign.")
    if problems:
        raise UsageError(problems)
    return NameOptions(order, pairs, SplitPatterns(by_pattern), allow_unknown)


def label_key(text: str) -> str:
    """Return a label in lower case, without blanks around it and without a number's leading zeros and ``.0``."""
    text = text.strip().lower()
    number = _NUMBER.fullmatch(text)
    return str(int(number[1])) if number else text


def is_number(text: str) -> bool:
    """Return whether a label is a whole number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def similar_emotion(name: str) -> str | None:
    """Return the emotion whose spelling is similar to a word of a name."""
    for word in re.findall(r"[^\W\d_]+", name):
        if close := difflib.get_close_matches(word, [*EMOTIONS, *SYNONYMS], 1, _SIMILAR):
            return SYNONYMS.get(close[0], close[0])
    return None


def _pairs(text: str, option: str, example: str, problems: list[str]) -> dict[str, str]:
    pairs = dict[str, str]()
    for part in text.split(","):
        name, equals, meaning = (piece.strip() for piece in part.partition("="))
        if not (name and equals and meaning):
            problems.append(f"{option}: '{part.strip()}' isn't a pair such as {example}.")
        elif pairs.setdefault(label_key(name), meaning.lower()) != meaning.lower():
            problems.append(f"{option}: {name} is given twice, with different meanings.")
    return pairs
