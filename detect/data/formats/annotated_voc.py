"""A VOC data set with all that its files say, as an `AnnotatedSet`."""

from collections.abc import Sequence
from pathlib import Path

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.data.faults import Fault
from detect.data.formats.set_extras import read_set_extras
from detect.data.formats.voc import (
    ClassNames,
    ImageEntry,
    Progress,
    SurveyedImage,
    annotated_entries,
    list_entries,
    survey_images,
)


def read_annotated_voc(
    root: Path,
    splits: Sequence[str] | None = None,
    classes: ClassNames = "auto",
    *,
    verify_images: bool = False,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Read a VOC data set with all that its files say.

    Objects keep `truncated`, `occluded`, `pose` and any other element in their extras, as
    `detect.data.formats.voc_extras` describes.

    Args:
        root: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
        splits: the splits to read; None for all in `ImageSets/Main`, or for every annotation where
            there is none; an empty list for every annotation, whatever the splits.
        classes: as in `read_voc`; of `auto`, classes that `extras.json` names come first, in its
            order.
        verify_images: decode every image once. Otherwise only the headers are read.
        progress: called with the number of images looked at and the number of all.

    Returns:
        The set; faulty objects and images are left out, and its `faults` say so.

    Raises:
        DetectError: a folder or a named split is missing, there is no image, or the classes make
            no sense.
    """
    set_extras, faults = read_set_extras(root)
    entries, listing_faults = list_entries(root, splits)
    faults += listing_faults
    once: dict[str, ImageEntry] = {}
    splits_of: dict[str, list[str]] = {}
    for entry in entries:
        once.setdefault(entry.image_id, entry)
        names = splits_of.setdefault(entry.image_id, [])
        if entry.listed_in.suffix == ".txt":
            names.append(entry.listed_in.stem)
    survey = survey_images(list(once.values()), classes, verify_images, progress, with_extras=True)
    images = [
        _as_annotated(entry, surveyed, splits_of[entry.image_id], survey.class_names)
        for entry, surveyed in zip(once.values(), survey.images, strict=True)
        if surveyed.meta is not None
    ]
    class_names = survey.class_names
    if classes == "auto":
        class_names = tuple(dict.fromkeys([*set_extras.class_names, *class_names]))
    if splits is None:
        faults += _unlisted(root, once)
    return AnnotatedSet(
        root,
        "voc",
        class_names,
        tuple(images),
        (*faults, *survey.faults),
        num_skipped_images=len(once) - len(images),
        num_skipped_objects=sum(
            surveyed.num_faulty_objects for surveyed in survey.images if surveyed.meta is not None
        ),
        extras=set_extras.extras,
    )


def _as_annotated(
    entry: ImageEntry,
    surveyed: SurveyedImage,
    splits: Sequence[str],
    class_names: Sequence[str],
) -> AnnotatedImage:
    assert surveyed.meta is not None
    assert surveyed.meta.path is not None
    objects = [
        AnnotatedObject(
            item.title, class_names[label], box, item.is_difficult, item.is_crowd, item.extras
        )
        for box, label, item in zip(surveyed.boxes, surveyed.labels, surveyed.objects, strict=True)
    ]
    return AnnotatedImage(
        entry.image_id,
        surveyed.meta.path,
        entry.annotation_path,
        surveyed.meta.original_size,
        tuple(sorted(splits)),
        tuple(objects),
        surveyed.extras,
    )


def _unlisted(root: Path, listed: dict[str, ImageEntry]) -> list[Fault]:
    """A warning if there are annotations that no split lists."""
    unlisted = [e.image_id for e in annotated_entries(root) if e.image_id not in listed]
    if not unlisted:
        return []
    folder = next(iter(listed.values())).listed_in.parent if listed else root
    value = f"{len(unlisted)} annotations are in no split and left out, the first {unlisted[0]}"
    remedy = "list them in a split, or delete them"
    return [Fault(str(folder), None, "unlisted-images", value, remedy, "warning")]
