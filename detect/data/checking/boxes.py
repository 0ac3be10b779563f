"""Boxes that are legal but rarely intended: doubled, tiny, huge, far too long, counted from 0."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.data.checking.finding import Finding, warning
from detect.ops.iou import box_iou

# Two drawings of one object by one hand agree to a pixel or two in forty; two objects side by
# side, one hidden by the other, rarely overlap that much.
SAME_BOX_IOU = 0.95
# A box of this side still has an IoU of 0.5 when it is drawn one pixel off. Of a smaller one, the
# annotation itself is no more certain than what is required of a detection.
MIN_BOX_SIDE = 3.0
# The longer side that detectors scale an image to, roughly: 416 … 640 in YOLO's family, more in
# Faster R-CNN's. What is smaller than one pixel there leaves nothing to see.
USUAL_INPUT_SIDE = 640
# Of the image's area. A box around everything is what some tools leave for an image as a whole.
HUGE_SHARE = 0.95
# Poles and ropes come to 1:15; a box beyond is mostly a slip of the hand.
MAX_ASPECT_RATIO = 20.0
# How many robust standard deviations the logarithm of an aspect ratio may be from the median of its
# class. For a normal distribution one in 5e8 lies beyond 6; real ones have heavier tails, and 8
# leaves those alone.
MAX_ASPECT_DEVIATIONS = 8.0
# And how many times the median. An object three quarters of which are hidden, or a cell seen from
# the side, is rarely more than four times as long as its class usually is.
MIN_ASPECT_FACTOR = 4.0
# The median and the spread of fewer boxes say little.
MIN_BOXES_FOR_ASPECT = 30
# 1.4826 times the median absolute deviation is a normal distribution's standard deviation.
_DEVIATIONS_PER_MEDIAN = 1.4826
_ROWS_AT_ONCE = 1024  # of the pairs of boxes of one image
# Boxes at the far edges that tell where counting began; fewer could be chance.
MIN_BOXES_AT_EDGE = 3


def check_boxes(annotated: AnnotatedSet) -> Iterator[Finding]:
    """What is suspicious about single boxes, image by image, then about all of them."""
    reported = {(f.file, f.object) for f in annotated.faults if f.rule == "duplicate-object"}
    for image in annotated.images:
        yield from _doubled_boxes(image, reported)
        for item in image.objects:
            if not item.crowd:
                yield from _odd_sizes(image, item)
    yield from _odd_shapes(annotated)
    yield from _zero_based_set(annotated)


def _of(
    image: AnnotatedImage,
    item: AnnotatedObject,
    rule: str,
    value: str,
    remedy: str,
    *others: AnnotatedObject,
) -> Finding:
    return warning(
        image.annotation_path,
        item.title,
        rule,
        value,
        remedy,
        images=(image.image_path,),
        boxes=(item.box, *(other.box for other in others)),
    )


# ---- two boxes at one place -------------------------------------------------------------------


def _doubled_boxes(
    image: AnnotatedImage, reported: set[tuple[str, str | None]]
) -> Iterator[Finding]:
    objects = [item for item in image.objects if not item.crowd]
    for item, earlier, iou in _overlapping(objects):
        if item.name == earlier.name:
            if (str(image.annotation_path), item.title) not in reported:
                value = f"nearly the same box as {earlier.title}: IoU {iou:.3f}"
                remedy = "delete one of the two, unless there are two objects"
                yield _of(image, item, "near-duplicate-object", value, remedy, earlier)
        else:
            value = f"the box of {earlier.title} with another class: IoU {iou:.3f}"
            remedy = "delete the wrong one: a detector cannot learn both of one object"
            yield _of(image, item, "two-classes-one-box", value, remedy, earlier)


def _overlapping(
    objects: Sequence[AnnotatedObject],
) -> Iterator[tuple[AnnotatedObject, AnnotatedObject, float]]:
    """For each object that has one, the first earlier object at the same place, and their IoU."""
    if len(objects) < 2:
        return
    boxes = torch.tensor([item.box for item in objects], dtype=torch.float32)
    for start in range(0, len(objects), _ROWS_AT_ONCE):
        rows = boxes[start : start + _ROWS_AT_ONCE]
        iou = box_iou(rows, boxes[: start + len(rows)]).numpy()  # [rows, boxes so far]
        row, column = np.nonzero(iou >= SAME_BOX_IOU)
        is_earlier = column < row + start
        # pairs come row by row, by rising columns: the first of a row is the one that is taken
        first, places = np.unique(row[is_earlier], return_index=True)
        for r, c in zip(first.tolist(), column[is_earlier][places].tolist(), strict=True):
            yield objects[start + r], objects[c], float(iou[r, c])


# ---- sizes and shapes -------------------------------------------------------------------------


def _odd_sizes(image: AnnotatedImage, item: AnnotatedObject) -> Iterator[Finding]:
    x1, y1, x2, y2 = item.box
    width, height = x2 - x1, y2 - y1
    side = min(width, height)
    image_height, image_width = image.size
    found = f"the box is {width:g} wide and {height:g} high"
    scaled_side = side * min(1.0, USUAL_INPUT_SIDE / max(image.size))
    if side < MIN_BOX_SIDE:
        remedy = "redraw or delete it: a pixel more or less decides whether a detection fits"
        yield _of(image, item, "tiny-box", found, remedy)
    elif scaled_side < 1:
        found += f" in an image of {image_width} by {image_height}"
        remedy = (
            f"cut the image into tiles, or delete the object: scaled to {USUAL_INPUT_SIDE} "
            "pixels, it has less than one"
        )
        yield _of(image, item, "tiny-box", found, remedy)
    share = width * height / max(image_width * image_height, 1)
    if share >= HUGE_SHARE:
        found = f"the box covers {share:.0%} of the image"
        remedy = "see whether the object fills the image, or the box was left as a tool made it"
        yield _of(image, item, "huge-box", found, remedy)
    ratio = max(width, height) / side
    if ratio > MAX_ASPECT_RATIO:
        found = f"the box is {width:g} wide and {height:g} high, 1:{ratio:.0f}"
        yield _of(image, item, "odd-aspect-ratio", found, "redraw the box if it is a slip")


def _odd_shapes(annotated: AnnotatedSet) -> Iterator[Finding]:
    """Boxes far from the usual shape of their class.

    What touches the image's edge is cut off there and has any shape, so it is left out.
    """
    by_class: dict[str, list[tuple[AnnotatedImage, AnnotatedObject]]] = {}
    for image in annotated.images:
        for item in image.objects:
            if not item.crowd and not _touches_edge(image, item):
                by_class.setdefault(item.name, []).append((image, item))
    for name, members in by_class.items():
        if len(members) < MIN_BOXES_FOR_ASPECT:
            continue
        ratios = _log_ratios(np.array([item.box for _, item in members]))
        median = float(np.median(ratios))
        spread = _DEVIATIONS_PER_MEDIAN * float(np.median(np.abs(ratios - median)))
        limit = max(MAX_ASPECT_DEVIATIONS * spread, np.log(MIN_ASPECT_FACTOR))
        for row in np.flatnonzero(np.abs(ratios - median) > limit).tolist():
            image, item = members[row]
            x1, y1, x2, y2 = item.box
            if max(x2 - x1, y2 - y1) > MAX_ASPECT_RATIO * min(x2 - x1, y2 - y1):
                continue  # said already
            value = (
                f"the box is {x2 - x1:g} wide and {y2 - y1:g} high, {np.exp(ratios[row]):.2g} "
                f"times as wide as high; the median of {name!r} is {np.exp(median):.2g}"
            )
            yield _of(image, item, "odd-aspect-ratio", value, "redraw the box if it is a slip")


def _log_ratios(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N"]:
    ratios: np.ndarray = np.log((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]))
    return ratios


def _touches_edge(image: AnnotatedImage, item: AnnotatedObject) -> bool:
    height, width = image.size
    x1, y1, x2, y2 = item.box
    return min(x1, y1) < 1 or x2 > width - 1 or y2 > height - 1


# ---- where counting begins --------------------------------------------------------------------


def _zero_based_set(annotated: AnnotatedSet) -> Iterator[Finding]:
    """A VOC set that counts from 0 as a whole.

    Two things come together then: coordinates of 0, and boxes that end one pixel before the far
    edges, where those of a set that counts from 1 end on them. Where boxes reach the edges, a 0
    here and there is a slip of its own.
    """
    slips = [fault for fault in annotated.faults if fault.rule == "zero-based-box"]
    if annotated.data_format != "voc" or not slips:
        return
    num_before, num_on_edge = 0, 0
    for image in annotated.images:
        height, width = image.size
        for item in image.objects:
            gaps = (width - item.box[2], height - item.box[3])
            num_before += gaps.count(1)
            num_on_edge += sum(gap < 1 for gap in gaps)
    if num_on_edge == 0 and num_before >= MIN_BOXES_AT_EDGE:
        yield warning(
            annotated.root,
            None,
            "zero-based-set",
            f"{len(slips)} boxes begin at 0, {num_before} end one pixel before the right or lower "
            "edge and none on it: the whole set counts from 0",
            "add 1 to all coordinates, in sound boxes too: VOC counts from 1",
        )
