"""Image files: the same one twice, one that looks like another, and how they are stored."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from detect.data.annotated import AnnotatedImage, AnnotatedSet
from detect.data.checking.finding import Finding, error, warning
from detect.data.checking.inspection import InspectedImage, pixel_digest
from detect.data.checking.similarity import find_similar
from detect.data.checking.splits import separating_splits
from detect.wording import counted

_FORMATS_BY_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WebP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".pbm": "PNM",
    ".pgm": "PNM",
    ".ppm": "PNM",
    ".pnm": "PNM",
}
_TRANSPOSING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_NUM_THREADS = 4

Inspected = Mapping[Path, InspectedImage]


def check_images(annotated: AnnotatedSet, inspected: Inspected) -> Iterator[Finding]:
    """What is suspicious about files of images, alone and compared to each other.

    Args:
        annotated: the set.
        inspected: its images that can be decoded.
    """
    # by name, so that of two images the same one comes first whatever the names of the splits
    images = sorted(
        (image for image in annotated.images if image.image_path in inspected),
        key=lambda image: image.image_id,
    )
    twins = find_twins(images, inspected)
    yield from (_twin(images[i], images[first]) for i, first in twins.items())
    yield from _similar(images, inspected, twins)
    yield from _same_names(images)
    yield from _suffixes(images, inspected)
    yield from _orientations(annotated, images, inspected)
    yield from _color_modes(images, inspected)


# ---- the same image twice -------------------------------------------------------------------


def find_twins(images: Sequence[AnnotatedImage], inspected: Inspected) -> dict[int, int]:
    """For each image that is an earlier one again: that one, the first of its kind.

    Files of equal bytes are equal. Other files are compared pixel by pixel, if they are equal when
    decoded roughly: a copy with other EXIF data, or written again without loss.
    """
    records = [inspected[image.image_path] for image in images]
    first_of_file: dict[bytes, int] = {}
    twins = {}
    for index, record in enumerate(records):
        first = first_of_file.setdefault(record.file_digest, index)
        if first != index:
            twins[index] = first
    candidates: dict[tuple[tuple[int, int], bytes], list[int]] = {}
    for index in first_of_file.values():
        key = (records[index].header.size, records[index].gray_digest)
        candidates.setdefault(key, []).append(index)
    doubtful = [index for group in candidates.values() if len(group) > 1 for index in group]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        digests = pool.map(pixel_digest, [images[index].image_path for index in doubtful])
        first_of_pixels: dict[bytes, int] = {}
        for index, digest in zip(doubtful, digests, strict=True):
            if digest is not None and first_of_pixels.setdefault(digest, index) != index:
                twins[index] = first_of_pixels[digest]
    # a copy of a copy is one of the first
    return {index: twins.get(first, first) for index, first in sorted(twins.items())}


def _twin(image: AnnotatedImage, first: AnnotatedImage) -> Finding:
    value = f"the same image as {first.image_path}"
    if _objects_of(image) != _objects_of(first):
        value += ", with other objects"
    images = (image.image_path, first.image_path)
    apart = separating_splits(image.splits, first.splits)
    if apart is None:
        remedy = "delete one of the two with its annotation"
        return warning(images[0], None, "identical-images", value, remedy, images=images)
    value += f", which is in {apart[1]}, this one in {apart[0]}"
    remedy = "keep one of the two: a detector must not be judged on what it has memorized"
    return error(images[0], None, "identical-images-across-splits", value, remedy, images=images)


def _objects_of(image: AnnotatedImage) -> list[tuple[str, tuple[float, ...]]]:
    return sorted((item.name, item.box) for item in image.objects)


# ---- images that look alike -----------------------------------------------------------------


def _similar(
    images: Sequence[AnnotatedImage], inspected: Inspected, twins: Mapping[int, int]
) -> Iterator[Finding]:
    if len(twins) == len(images):
        return
    chosen = [index for index in range(len(images)) if index not in twins]
    records = [inspected[images[index].image_path] for index in chosen]
    hashes = np.array([record.difference_hash for record in records], dtype=np.uint64)
    similar = find_similar(hashes, np.stack([record.thumbnail for record in records]))
    for later, earlier in similar.items():
        yield _look_alike(images[chosen[later]], [images[chosen[index]] for index in earlier])


def _look_alike(image: AnnotatedImage, earlier: Sequence[AnnotatedImage]) -> Finding:
    for other in earlier:
        apart = separating_splits(image.splits, other.splits)
        if apart is not None:
            return warning(
                image.image_path,
                None,
                "similar-images-across-splits",
                f"looks like {other.image_path}, which is in {apart[1]}, this one in {apart[0]}",
                "keep images of one scene in one split: the detector has seen the other one",
                images=(image.image_path, other.image_path),
            )
    return warning(
        image.image_path,
        None,
        "similar-images",
        f"looks like {earlier[0].image_path}",
        "if it is the same image in another size or quality, delete one of the two",
        images=(image.image_path, earlier[0].image_path),
    )


# ---- how they are stored ----------------------------------------------------------------------


def _same_names(images: Sequence[AnnotatedImage]) -> Iterator[Finding]:
    """Files that differ in their suffix only; of VOC's, the reader takes one and says so."""
    by_name: dict[Path, AnnotatedImage] = {}
    for image in images:
        first = by_name.setdefault(image.image_path.with_suffix(""), image)
        if first is not image:
            yield warning(
                image.image_path,
                None,
                "several-images",
                f"{first.image_path.name} has the same name but for its suffix",
                "delete one of the two, or rename it: labels are found by the name alone",
                images=(image.image_path, first.image_path),
            )


def _suffixes(images: Sequence[AnnotatedImage], inspected: Inspected) -> Iterator[Finding]:
    for image in images:
        path, found = image.image_path, inspected[image.image_path].header.file_format
        promised = _FORMATS_BY_SUFFIX.get(path.suffix.lower())
        if promised not in (None, found):
            yield warning(
                path,
                None,
                "wrong-suffix",
                f"the file is a {found}, its name says {promised}",
                "rename it, and the references to it: other programs go by the name",
                images=(path,),
            )


def _orientations(
    annotated: AnnotatedSet, images: Sequence[AnnotatedImage], inspected: Inspected
) -> Iterator[Finding]:
    """Images that EXIF turns: did whoever drew the boxes see them turned?"""
    sure = []
    for image in images:
        header = inspected[image.image_path].header
        if header.orientation == 1 or not image.objects:
            continue
        if header.orientation in _TRANSPOSING and not _fit(image, header.stored_size):
            sure.append(image)
            continue
        yield warning(
            image.image_path,
            None,
            "unclear-rotation",
            f"EXIF turns the image (orientation {header.orientation}); the boxes, which count "
            "on it as displayed, would fit it as stored too",
            "look at the boxes; then turn the pixels themselves and remove the orientation",
            images=(image.image_path,),
            boxes=tuple(item.box for item in image.objects),
        )
    if sure:
        yield warning(
            annotated.root,
            None,
            "rotated-images",
            f"EXIF turns {counted(len(sure), 'image')}, the first {sure[0].image_path.name}; the "
            "boxes fit them as displayed only",
            "they are read right here; for programs that ignore EXIF, turn the pixels themselves",
            images=(sure[0].image_path,),
            boxes=tuple(item.box for item in sure[0].objects),
        )


def _fit(image: AnnotatedImage, size: tuple[int, int]) -> bool:
    """Whether the boxes fit into an image of that (height, width)."""
    return all(item.box[2] <= size[1] and item.box[3] <= size[0] for item in image.objects)


def _color_modes(images: Sequence[AnnotatedImage], inspected: Inspected) -> Iterator[Finding]:
    """Images stored in another way than most of the set."""
    modes = [inspected[image.image_path].header.color_mode for image in images]
    counts = Counter(modes)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for image, mode in zip(images, modes, strict=True):
        if mode != usual:
            yield warning(
                image.image_path,
                None,
                "mixed-color-modes",
                f"the image is stored as {mode}, {counts[usual]} of {len(modes)} as {usual}",
                f"see whether it belongs to the set; it is read as 8-bit RGB{_LOST.get(mode, '')}",
                images=(image.image_path,),
            )


_LOST = {
    "alpha": ", what is transparent shows whatever lies behind",
    "16 bit": ", with the upper half of the bits",
    "CMYK": ", with colors that are approximate",
}
