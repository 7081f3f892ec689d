"""Near-duplicate images, found by a perceptual hash without comparing all pairs.

The hash is the DCT hash of pHash (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"):
one bit for each of 64 low frequencies, without the constant ones, set where the coefficient is above their median.
pHash smooths and shrinks to 32 × 32 first, to save time; prepared images are small enough to transform directly.

``NEAR_DISTANCE`` was chosen by eye on FER-2013's Training and PublicTest, at 30 or more pairs of each distance. Half of
a hash's bits are set, so distances are even. Up to 6 bits (1,349 pairs) nearly all are one photo: compressed, lit anew,
cropped, or with and without a watermark. Of the 785 pairs of 8 bits a fifth to a quarter are two people.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR_DISTANCE = 6
"""The largest number of differing bits of near-duplicates."""

SMALLEST = 16
"""Side of the smallest images that have all 8 × 8 frequencies of the hash, with at least two pixels a wave."""

_FREQUENCIES = np.arange(1, 9)
_EQUAL = 3  # equal blocks: a larger number means more sorts with smaller buckets


def hash_images(images: np.ndarray) -> np.ndarray:
    """Return the 64-bit DCT hash, uint64, n, of images, uint8, n × size × size."""
    size = images.shape[-1]
    waves = np.cos(np.pi / size * np.outer(_FREQUENCIES, np.arange(size) + 0.5)).astype(np.float32)
    coefficients = (waves @ images.astype(np.float32) @ waves.T).reshape(-1, 64)
    bits = coefficients > np.median(coefficients, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view("<u8").reshape(-1)


def earliest_near(hashes: np.ndarray) -> np.ndarray:
    """Return for each hash, uint64, n, the position, int64, of the first one within ``NEAR_DISTANCE``, or its own."""
    distinct, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    earliest = first.copy()
    for left, right in _near_pairs(distinct):
        np.minimum.at(earliest, left, first[right])
        np.minimum.at(earliest, right, first[left])
    return earliest[group]


def near_groups(hashes: np.ndarray) -> np.ndarray:
    """Return a group's number for each hash, uint64, n, int32, n. Near-duplicates, also in a chain, share a group."""
    distinct, position = np.unique(hashes, return_inverse=True)
    left, right = np.concatenate([np.empty((2, 0), np.int64), *map(np.stack, _near_pairs(distinct))], axis=1)
    links = coo_array((np.ones(len(left)), (left, right)), (len(distinct), len(distinct)))
    return np.asarray(connected_components(links, directed=False)[1][position])


def _near_pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the positions of pairs that are near, every such pair at least once.

    The 64 bits are cut into ``NEAR_DISTANCE`` + 3 blocks, so at least three blocks of a pair are equal. For every
    choice of three, sorting finds the hashes with equal blocks (Manku, Jain and Das Sarma 2007, "Detecting
    Near-Duplicates for Web Crawling").
    """
    edges = np.linspace(0, 64, _EQUAL + NEAR_DISTANCE + 1).round().astype(int).tolist()
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
            near = np.bitwise_count(hashes[pairs[0]] ^ hashes[pairs[1]]) <= NEAR_DISTANCE
            yield pairs[0][near], pairs[1][near]
