"""Slow oracles for proposals, in plain Python: coverage of objects, and similarity of two masks.

Uijlings et al. 2013, "Selective search for object recognition", sections 3.2 and 5.
"""

from fractions import Fraction

from tests.reference.boxes import iou


def best_overlap(boxes, limit, object_box):
    """The highest IoU that one of the first `limit` boxes has with the object."""
    return max((iou(box, object_box) for box in boxes[:limit]), default=0)


def coverage(images, limit, iou_threshold):
    """Recall over all objects, and MABO, with at most `limit` boxes of each image.

    `images`: of each, its boxes, best first, and its objects `(class, box, difficult)`.
    """
    by_class = {}
    for boxes, objects in images:
        for label, box, difficult in objects:
            if not difficult:
                by_class.setdefault(label, []).append(best_overlap(boxes, limit, box))
    everything = [overlap for overlaps in by_class.values() for overlap in overlaps]
    recall = sum(overlap >= iou_threshold for overlap in everything) / len(everything)
    averages = [sum(overlaps) / len(overlaps) for overlaps in by_class.values()]
    return recall, sum(averages) / len(averages)


def histogram(pixels, maps, num_bins):
    """Of a set of pixels `(y, x)`, the shares of each bin of each map, L1-normalized over all."""
    shares = {}
    for number, bins in enumerate(maps):
        for y, x in pixels:
            key = (number, int(bins[y][x]))
            assert 0 <= key[1] < num_bins
            shares[key] = shares.get(key, 0) + Fraction(1, len(pixels) * len(maps))
    return shares


def intersection(one, other):
    """Equations 1 and 3: the sum of the lower share of each bin."""
    return sum(min(share, other.get(key, 0)) for key, share in one.items())


def box_around(pixels):
    """The least half-open box around pixels."""
    ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def size_similarity(one, other, area):
    """Equation 4."""
    return 1 - Fraction(len(one) + len(other), area)


def fill_similarity(one, other, area):
    """Equation 5."""
    x1, y1, x2, y2 = box_around([*one, *other])
    return 1 - Fraction((x2 - x1) * (y2 - y1) - len(one) - len(other), area)


def touch(one, other):
    """Whether two sets of pixels have neighbors, corners included."""
    other = set(other)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return any((y + dy, x + dx) in other for y, x in one for dy, dx in steps)
