"""Picture files: the same one twice, one that looks like another, and how they are stored."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from detect.data.annotated import AnnotatedPicture, AnnotatedSet
from detect.data.checking.finding import Finding, error, warning
from detect.data.checking.inspection import InspectedImage, pixel_digest
from detect.data.checking.similarity import find_similar
from detect.data.checking.splits import separating_splits

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


def check_pictures(annotated: AnnotatedSet, inspected: Inspected) -> Iterator[Finding]:
    """What is suspicious about files of pictures, alone and compared to each other.

    Args:
        annotated: the set.
        inspected: its pictures that can be decoded.
    """
    # by name, so that of two pictures the same one comes first whatever the names of the splits
    pictures = sorted(
        (picture for picture in annotated.pictures if picture.image_path in inspected),
        key=lambda picture: picture.image_id,
    )
    twins = find_twins(pictures, inspected)
    yield from (_twin(pictures[i], pictures[first]) for i, first in twins.items())
    yield from _similar(pictures, inspected, twins)
    yield from _same_names(pictures)
    yield from _suffixes(pictures, inspected)
    yield from _orientations(annotated, pictures, inspected)
    yield from _color_modes(pictures, inspected)


# ---- the same picture twice -------------------------------------------------------------------


def find_twins(pictures: Sequence[AnnotatedPicture], inspected: Inspected) -> dict[int, int]:
    """For each picture that is an earlier one again: that one, the first of its kind.

    Files of equal bytes are equal. Other files are compared pixel by pixel, if they are equal when
    decoded roughly: a copy with other EXIF data, or written again without loss.
    """
    records = [inspected[picture.image_path] for picture in pictures]
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
        digests = pool.map(pixel_digest, [pictures[index].image_path for index in doubtful])
        first_of_pixels: dict[bytes, int] = {}
        for index, digest in zip(doubtful, digests, strict=True):
            if digest is not None and first_of_pixels.setdefault(digest, index) != index:
                twins[index] = first_of_pixels[digest]
    # a copy of a copy is one of the first
    return {index: twins.get(first, first) for index, first in sorted(twins.items())}


def _twin(picture: AnnotatedPicture, first: AnnotatedPicture) -> Finding:
    value = f"the same picture as {first.image_path}"
    if _objects_of(picture) != _objects_of(first):
        value += ", with other objects"
    images = (picture.image_path, first.image_path)
    apart = separating_splits(picture.splits, first.splits)
    if apart is None:
        remedy = "delete one of the two with its annotation"
        return warning(images[0], None, "identical-images", value, remedy, images=images)
    value += f", which is in {apart[1]}, this one in {apart[0]}"
    remedy = "keep one of the two: a detector is judged on what it knows by heart otherwise"
    return error(images[0], None, "identical-images-across-splits", value, remedy, images=images)


def _objects_of(picture: AnnotatedPicture) -> list[tuple[str, tuple[float, ...]]]:
    return sorted((item.name, item.box) for item in picture.objects)


# ---- pictures that look alike -----------------------------------------------------------------


def _similar(
    pictures: Sequence[AnnotatedPicture], inspected: Inspected, twins: Mapping[int, int]
) -> Iterator[Finding]:
    if len(twins) == len(pictures):
        return
    chosen = [index for index in range(len(pictures)) if index not in twins]
    records = [inspected[pictures[index].image_path] for index in chosen]
    hashes = np.array([record.difference_hash for record in records], dtype=np.uint64)
    similar = find_similar(hashes, np.stack([record.thumbnail for record in records]))
    for later, earlier in similar.items():
        yield _look_alike(pictures[chosen[later]], [pictures[chosen[index]] for index in earlier])


def _look_alike(picture: AnnotatedPicture, earlier: Sequence[AnnotatedPicture]) -> Finding:
    for other in earlier:
        apart = separating_splits(picture.splits, other.splits)
        if apart is not None:
            return warning(
                picture.image_path,
                None,
                "similar-images-across-splits",
                f"looks like {other.image_path}, which is in {apart[1]}, this one in {apart[0]}",
                "keep pictures of one scene in one split: the detector has seen the other one",
                images=(picture.image_path, other.image_path),
            )
    return warning(
        picture.image_path,
        None,
        "similar-images",
        f"looks like {earlier[0].image_path}",
        "if it is the same picture in another size or quality, delete one of the two",
        images=(picture.image_path, earlier[0].image_path),
    )


# ---- how they are stored ----------------------------------------------------------------------


def _same_names(pictures: Sequence[AnnotatedPicture]) -> Iterator[Finding]:
    """Files that differ in their suffix only; of VOC's, the reader takes one and says so."""
    by_name: dict[Path, AnnotatedPicture] = {}
    for picture in pictures:
        first = by_name.setdefault(picture.image_path.with_suffix(""), picture)
        if first is not picture:
            yield warning(
                picture.image_path,
                None,
                "several-images",
                f"{first.image_path.name} has the same name but for its suffix",
                "delete one of the two, or rename it: labels are found by the name alone",
                images=(picture.image_path, first.image_path),
            )


def _suffixes(pictures: Sequence[AnnotatedPicture], inspected: Inspected) -> Iterator[Finding]:
    for picture in pictures:
        path, found = picture.image_path, inspected[picture.image_path].header.file_format
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
    annotated: AnnotatedSet, pictures: Sequence[AnnotatedPicture], inspected: Inspected
) -> Iterator[Finding]:
    """Pictures that EXIF turns: did whoever drew the boxes see them turned?"""
    sure = []
    for picture in pictures:
        header = inspected[picture.image_path].header
        if header.orientation == 1 or not picture.objects:
            continue
        if header.orientation in _TRANSPOSING and not _fit(picture, header.stored_size):
            sure.append(picture)
            continue
        yield warning(
            picture.image_path,
            None,
            "unclear-rotation",
            f"EXIF turns the picture (orientation {header.orientation}); the boxes, which count "
            "on it as displayed, would fit it as stored too",
            "look at the boxes; then turn the pixels themselves and remove the orientation",
            images=(picture.image_path,),
            boxes=tuple(item.box for item in picture.objects),
        )
    if sure:
        yield warning(
            annotated.root,
            None,
            "rotated-images",
            f"EXIF turns {len(sure)} pictures, the first {sure[0].image_path.name}; their boxes "
            "fit them as displayed only",
            "they are read right here; for programs that ignore EXIF, turn the pixels themselves",
            images=(sure[0].image_path,),
            boxes=tuple(item.box for item in sure[0].objects),
        )


def _fit(picture: AnnotatedPicture, size: tuple[int, int]) -> bool:
    """Whether the boxes fit into a picture of that (height, width)."""
    return all(item.box[2] <= size[1] and item.box[3] <= size[0] for item in picture.objects)


def _color_modes(pictures: Sequence[AnnotatedPicture], inspected: Inspected) -> Iterator[Finding]:
    """Pictures stored in another way than most of the set."""
    modes = [inspected[picture.image_path].header.color_mode for picture in pictures]
    counts = Counter(modes)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for picture, mode in zip(pictures, modes, strict=True):
        if mode != usual:
            yield warning(
                picture.image_path,
                None,
                "mixed-color-modes",
                f"the picture is stored as {mode}, {counts[usual]} of {len(modes)} as {usual}",
                f"see whether it belongs to the set; it is read as 8-bit RGB{_LOST.get(mode, '')}",
                images=(picture.image_path,),
            )


_LOST = {
    "alpha": ", what is transparent shows whatever lies behind",
    "16 bit": ", with the upper half of the bits",
    "CMYK": ", with colors that are approximate",
}
