"""The seven labels of FER-2013 and the names under which they are met in the wild.

The order of ``EMOTIONS`` is the order of the original ``fer2013.csv`` and is canonical here: label 0
is angry, label 6 is neutral. Alphabetical orders, such as the one that
``torchvision.datasets.ImageFolder`` gives, put neutral before sad; map those by name, never by number.
"""

from collections.abc import Sequence

from fer_ray.errors import DataError

EMOTIONS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Label names; the index of a name is its label."""

NUM_CLASSES = len(EMOTIONS)

SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "fearful": "fear",
    "fearfulness": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "neutrality": "neutral",
}
"""Other words for them, in lower case."""


def label_of(name: str) -> int | None:
    """Return the label (0 to 6, csv order) of an emotion's name, or None where the name is none of the seven.

    Case and blanks around the name don't matter; ``anger``, ``happiness`` and their like are understood.
    """
    key = name.strip().lower()
    key = SYNONYMS.get(key, key)
    return EMOTIONS.index(key) if key in EMOTIONS else None


def csv_order(names: Sequence[str]) -> list[int]:
    """Return for each csv label the position of its name among a checkpoint's label names.

    Raises:
        DataError: the names are not the seven emotions, each once.
    """
    labels = [label_of(name) for name in names]
    if sorted(labels, key=str) != list(range(NUM_CLASSES)):
        raise DataError(
            f"label names {', '.join(names)}: expected {', '.join(EMOTIONS)}, in any order. Use a checkpoint that was"
            " trained on these."
        )
    return [labels.index(label) for label in range(NUM_CLASSES)]
