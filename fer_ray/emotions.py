"""The seven labels of FER-2013 and other names for them.

``EMOTIONS`` is in the order of the original ``fer2013.csv``: label 0 is angry, label 6 is neutral. In alphabetical
order, such as that of ``torchvision.datasets.ImageFolder``, neutral comes before sad: map labels by name.
"""

from collections.abc import Sequence

from fer_ray.errors import DataError

EMOTIONS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Label names; the index of a name is its label."""

NUM_CLASSES = len(EMOTIONS)
PROBABILITY_COLUMNS = [f"p_{name}" for name in EMOTIONS]  # of tables with probabilities

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
"""Other names, in lower case, and the emotion that each means."""


def label_of(name: str) -> int | None:
    """Return the label (0 to 6, csv order) of an emotion's name, or None for another name.

    Case and surrounding blanks are ignored. Names in ``SYNONYMS``, such as ``anger``, are known too.
    """
    key = name.strip().lower()
    key = SYNONYMS.get(key, key)
    return EMOTIONS.index(key) if key in EMOTIONS else None


def csv_order(names: Sequence[str]) -> list[int]:
    """Return the index of each csv label's name in a checkpoint's label names; ``DataError`` for other names."""
    labels = [label_of(name) for name in names]
    if sorted(labels, key=str) != list(range(NUM_CLASSES)):
        raise DataError(
            f"label names {', '.join(names)}: expected {', '.join(EMOTIONS)}, in any order. Use a checkpoint that was"
            " trained on these labels."
        )
    return [labels.index(label) for label in range(NUM_CLASSES)]
