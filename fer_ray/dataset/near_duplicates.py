"""Near-duplicate images, found by a perceptual hash without comparing all pairs.

The hash is the DCT hash of pHash (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"):
one bit for each of 64 low frequencies, without the constant ones, set where the coefficient is above their median.
Light and contrast don't change it; rescaling and JPEG compression change few bits. pHash smooths and shrinks to 32 × 32
first, to save time; prepared images are small enough to transform directly.

``NEAR_DISTANCE`` was chosen on the 30,765 distinct images of FER-2013's Training and PublicTest, by looking at 30
random pairs at each distance, and at the 48 pairs of 4 and of 6 bits with the lowest correlation of pixels. Half of a
hash's bits are set, so distances are even. Up to 6 bits (1,349 pairs) nearly all are one photo: compressed, lit anew,
cropped, or with and without a watermark; one pair of 4 bits and five of 6 are two people. Of the 785 pairs of 8 bits a
fifth to a quarter are two people, and of the 1,942 of 10 bits about half have different labels.

Pairs of two people are coincidences, so their number grows with the square of the number of images.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

NEAR_DISTANCE = 6
"""The largest number of differing bits of near-duplicates."""

SMALLEST = 16
"""Side of the smallest images that have all 8 × 8 frequencies of the hash, with at least two pixels a wave."""

_FREQUENCIES = np.arange(1, 9)
_EQUAL = 3  # equal blocks of _EQUAL + distance blocks: a larger number means more sorts with smaller buckets


def hash_images(images: np.ndarray) -> np.ndarray:
    """Return the 64-bit DCT hash, uint64, n, of images, uint8, n × size × size."""
    size = images.shape[-1]
    waves = np.cos(np.pi / size * np.outer(_FREQUENCIES, np.arange(size) + 0.5)).astype(np.float32)
    coefficients = (waves @ images.astype(np.float32) @ waves.T).reshape(-1, 64)
    bits = coefficients > np.median(coefficients, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view("<u8").reshape(-1)


def earliest_near(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Return for each hash the position of the first hash that differs in at most ``distance`` bits.

    Args:
        hashes: uint64, n.
        distance: 0 to 8.

    Returns:
        int64, n; a hash without an earlier near one has its own position.
    """
    distinct, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    earliest = first.copy()
    for left, right in _near_pairs(distinct, distance):
        np.minimum.at(earliest, left, first[right])
        np.minimum.at(earliest, right, first[left])
    return earliest[group]


def _near_pairs(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the positions of pairs that differ in at most ``distance`` bits, every such pair at least once.

    The 64 bits are cut into ``distance`` + 3 blocks. The differing bits are in at most ``distance`` of them, so at
    least three blocks are equal. For every choice of three, sorting finds the hashes with equal blocks (Manku, Jain and
    Das Sarma 2007, "Detecting Near-Duplicates for Web Crawling").
    """
    edges = np.linspace(0, 64, _EQUAL + distance + 1).round().astype(int).tolist()
    blocks = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    for chosen in combinations(blocks, _EQUAL):
        keys = hashes & np.uint64(sum(chosen))
        order = np.argsort(keys)
        keys = keys[order]
        left = np.arange(len(keys))
        for lag in range(1, len(keys)):
            left = left[left < len(keys) - lag]
            left = left[keys[left] == keys[left + lag]]
            if not len(left):
                break
            pairs = order[left], order[left + lag]
            near = np.bitwise_count(hashes[pairs[0]] ^ hashes[pairs[1]]) <= distance
            yield pairs[0][near], pairs[1][near]
