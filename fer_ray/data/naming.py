"""What splits and labels are called in the wild."""

import re

from fer_ray.emotions import EMOTIONS, NUM_CLASSES, label_of

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "publictest": "validation",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
"""Names of splits, in lower case, and the split each means."""


def split_of_file(name: str) -> str | None:
    """Return the split that a file's name begins with, as in ``train-00000-of-00002.parquet``, else None."""
    return SPLIT_NAMES.get(re.split(r"[-_. ]", name.lower(), maxsplit=1)[0])


def read_label(text: str) -> int | None:
    """Return a written label: a number in csv order or a name, blanks aside; None where nothing is written.

    Raises:
        ValueError: it is neither, with a sentence for people.
    """
    text = text.strip()
    if not text:
        return None
    label = int(text) if text.isascii() and text.isdigit() else label_of(text)
    if label is None or not 0 <= label < NUM_CLASSES:
        raise ValueError(f"emotion '{text}', expected 0 to {NUM_CLASSES - 1} or one of {', '.join(EMOTIONS)}")
    return label


def read_split(text: str) -> str:
    """Return the split that a written name means.

    Raises:
        ValueError: it is none of ``SPLIT_NAMES``, with a sentence for people.
    """
    split = SPLIT_NAMES.get(text.strip().lower())
    if split is None:
        raise ValueError(f"split '{text.strip()}', expected Training, PublicTest or PrivateTest; train, valid or test")
    return split
