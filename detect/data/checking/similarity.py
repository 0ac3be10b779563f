"""Images that look alike, found without comparing each with each.

Hashes of 64 bits that differ in at most six agree in at least one of seven bands, since six
differing bits cannot spoil seven bands (Manku et al. 2007, "Detecting near-duplicates for web
crawling"). So only images that share a band are compared. A hash alone takes plain images for
alike, so their thumbnails have the last word.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int, UInt8, UInt64

# Scaling an image or compressing it again changes up to about four bits, another focus of the
# microscope, as between BloodImage_00037 and 00038 of BCCD, six.
MAX_HASH_DISTANCE = 6
# Thumbnails of the same image correlate with more than 0.99 after scaling or compressing it
# again, with 0.99 in another focus. Different images, with the sky above and the ground below for
# example, come to 0.91 in VOC 2012, those of one microscope to 0.76 in BCCD.
MIN_CORRELATION = 0.98
# Gray levels of standard deviation over the thumbnail. Below, what differs between two images
# is smaller than what a thumbnail can show: all blank pages look alike.
MIN_CONTRAST = 4.0

# (first bit, number of bits), one more than MAX_HASH_DISTANCE
_BANDS = ((0, 9), (9, 9), (18, 9), (27, 9), (36, 9), (45, 9), (54, 10))
_PAIRS_AT_ONCE = 16384  # 32 MB of thumbnails in float32
_ROWS_AT_ONCE = 256  # of a crowded band
_BITS_IN_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def find_similar(
    hashes: UInt64[np.ndarray, "N"], thumbnails: UInt8[np.ndarray, "N side side"]
) -> dict[int, list[int]]:
    """Find images that look like earlier ones.

    Args:
        hashes: by `difference_hash`.
        thumbnails: gray.

    Returns:
        For each image that looks like earlier ones: these, in rising order. Of several images
        with one hash, a later one is compared to the first of them alone.
    """
    if len(hashes) == 0:
        return {}
    flat = thumbnails.reshape(len(thumbnails), -1)  # [N, pixels]
    usable = np.flatnonzero(flat.std(axis=1) >= MIN_CONTRAST)
    similar: dict[int, list[int]] = {}

    def note(first: np.ndarray, second: np.ndarray) -> None:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            similar.setdefault(max(a, b), []).append(min(a, b))

    leaders = []
    for group in _equal_groups(hashes[usable]):
        waiting = usable[group]
        while len(waiting):
            leader, others = waiting[0], waiting[1:]
            alike = _are_alike(flat, np.full(len(others), leader), others)
            note(np.full(int(alike.sum()), leader), others[alike])
            leaders.append(int(leader))
            waiting = others[~alike]
    chosen = np.array(sorted(leaders), dtype=np.int64)
    for first, second in _close_pairs(hashes[chosen]):
        alike = _are_alike(flat, chosen[first], chosen[second])
        note(chosen[first][alike], chosen[second][alike])
    return {index: sorted(set(others)) for index, others in sorted(similar.items())}


def _equal_groups(keys: UInt64[np.ndarray, "N"]) -> list[Int[np.ndarray, "_"]]:
    """The places of each value, rising."""
    if len(keys) == 0:
        return []
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(order, ends)


def _close_pairs(
    hashes: UInt64[np.ndarray, "N"],
) -> Iterator[tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]]:
    """The pairs of places whose hashes differ in 1 … `MAX_HASH_DISTANCE` bits, each once."""
    masks = [np.uint64(((1 << size) - 1) << start) for start, size in _BANDS]
    for band, mask in enumerate(masks):
        for group in _equal_groups(hashes & mask):
            for start in range(0, len(group) - 1, _ROWS_AT_ONCE):
                rows = group[start : start + _ROWS_AT_ONCE]
                differing = hashes[rows][:, None] ^ hashes[group[start:]][None, :]
                close = (differing != 0) & (_count_bits(differing) <= MAX_HASH_DISTANCE)
                close &= np.arange(len(rows))[:, None] < np.arange(differing.shape[1])[None, :]
                for earlier in masks[:band]:  # pairs that an earlier band has found
                    close &= (differing & earlier) != 0
                row, column = np.nonzero(close)
                if len(row):
                    yield rows[row], group[start:][column]


def _count_bits(numbers: UInt64[np.ndarray, "R C"]) -> UInt8[np.ndarray, "R C"]:
    counts: np.ndarray
    if hasattr(np, "bitwise_count"):  # since NumPy 2
        counts = np.bitwise_count(numbers)
    else:
        of_bytes = _BITS_IN_BYTE[np.ascontiguousarray(numbers).view(np.uint8)]
        counts = of_bytes.reshape(*numbers.shape, 8).sum(axis=-1, dtype=np.uint8)
    return counts


def _are_alike(
    flat: UInt8[np.ndarray, "N pixels"], first: Int[np.ndarray, "M"], second: Int[np.ndarray, "M"]
) -> np.ndarray:
    """Whether the thumbnails of each pair correlate, boolean [M]."""
    alike = [
        (_normalized(flat[first[part]]) * _normalized(flat[second[part]])).sum(axis=1)
        >= MIN_CORRELATION
        for start in range(0, len(first), _PAIRS_AT_ONCE)
        for part in [slice(start, start + _PAIRS_AT_ONCE)]
    ]
    return np.concatenate(alike) if alike else np.zeros(0, dtype=bool)


def _normalized(flat: UInt8[np.ndarray, "M pixels"]) -> Float32[np.ndarray, "M pixels"]:
    """Of mean 0 and length 1, so that a product is a correlation."""
    centered = flat.astype(np.float32)
    centered -= centered.mean(axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6)
    normalized: np.ndarray = centered / lengths
    return normalized
