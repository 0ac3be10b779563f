"""The files of a data set in VOC's layout."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, plain_decimal
from detect.data.formats.set_extras import EXTRAS_FILE, SetExtras, set_extras_text
from detect.data.formats.set_files import (
    SetFiles,
    image_name,
    lines,
    split_names,
    with_writable_ids,
)
from detect.data.formats.voc_extras import IMAGE_TAGS, OBJECT_TAGS, is_plain_text, write_extras
from detect.errors import DetectError
from detect.wording import counted

_IMAGES = PurePosixPath("JPEGImages")
_ANNOTATIONS = PurePosixPath("Annotations")
_SPLITS = PurePosixPath("ImageSets/Main")


def voc_files(annotated: AnnotatedSet) -> SetFiles:
    """Lay a set out as VOC's.

    Coordinates count from 1 and include the last pixel: (x1, y1, x2, y2) becomes xmin = x1 + 1,
    ymin = y1 + 1, xmax = x2, ymax = y2, with decimals where there are any. A box of no more than a
    pixel has none there, since a reader takes xmin = xmax for a stray click.

    Raises:
        DetectError: a class has a name that XML cannot hold.
    """
    for name in annotated.class_names:
        if not is_plain_text(name):
            raise DetectError(
                f"{annotated.root}: the class {name!r} has a name that XML cannot hold; rename it"
            )
    sound, losses = with_writable_ids(annotated)
    num_thin = sum(_is_thin(item) for image in sound.images for item in image.objects)
    if num_thin:
        losses.append(
            f"{counted(num_thin, 'object')} left out: boxes of a pixel's width or height at most"
        )
    num_objects = sum(len(image.objects) for image in sound.images)
    return SetFiles(
        [(p.image_path, _IMAGES / image_name(p)) for p in sound.images],
        _texts(sound),
        num_objects - num_thin,
        losses,
    )


def _texts(annotated: AnnotatedSet) -> Iterator[tuple[PurePosixPath, str]]:
    for image in annotated.images:
        yield _ANNOTATIONS / f"{image.image_id}.xml", annotation_text(image)
    for split in split_names(annotated):
        ids = [image.image_id for image in annotated.images if split in image.splits]
        yield _SPLITS / f"{split}.txt", lines(ids)
    extras = SetExtras(annotated.class_names, annotated.extras)
    yield PurePosixPath(EXTRAS_FILE), set_extras_text(extras)


def _is_thin(item: AnnotatedObject) -> bool:
    x1, y1, x2, y2 = item.box
    return x1 + 1 >= x2 or y1 + 1 >= y2


def annotation_text(image: AnnotatedImage) -> str:
    """The XML of an image and its objects."""
    root = Element("annotation")
    height, width = image.size
    extras = dict(image.extras)
    depth = extras.get("depth")
    SubElement(root, "filename").text = PurePosixPath(image_name(image)).name
    size = SubElement(root, "size")
    SubElement(size, "width").text = str(width)
    SubElement(size, "height").text = str(height)
    if type(depth) is int:
        SubElement(size, "depth").text = str(extras.pop("depth"))
    write_extras(root, extras, IMAGE_TAGS)
    for item in image.objects:
        if not _is_thin(item):
            _add_object(root, item)
    indent(root, "\t")
    return tostring(root, encoding="unicode") + "\n"


def _add_object(root: Element, item: AnnotatedObject) -> None:
    element = SubElement(root, "object")
    SubElement(element, "name").text = item.name
    write_extras(element, item.extras, OBJECT_TAGS)
    SubElement(element, "difficult").text = str(int(item.difficult))
    if item.crowd:
        SubElement(element, "crowd").text = "1"
    box = SubElement(element, "bndbox")
    x1, y1, x2, y2 = item.box
    numbers = (x1 + 1, y1 + 1, x2, y2)
    for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), numbers, strict=True):
        SubElement(box, tag).text = str(plain_decimal(number))
