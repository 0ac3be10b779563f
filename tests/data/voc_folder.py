"""Small VOC data sets for tests."""

from typing import NamedTuple

import cv2
import numpy as np

from detect.data import DATASETS, DatasetRequest, Source, read_annotated

GOOD_BOX = (2, 3, 20, 30)


def object_xml(name="dog", box=GOOD_BOX, extra="<difficult>0</difficult>"):
    """An <object>; a name, box or coordinate of None leaves its element out."""
    name_xml = "" if name is None else f"<name>{name}</name>"
    tags = ("xmin", "ymin", "xmax", "ymax")
    box_xml = ""
    if box is not None:
        rows = (f"<{tag}>{v}</{tag}>" for tag, v in zip(tags, box, strict=True) if v is not None)
        box_xml = f"<bndbox>{''.join(rows)}</bndbox>"
    return f"<object>{name_xml}{extra}{box_xml}</object>"


def annotation_xml(*objects, size=(40, 60), head='<?xml version="1.0"?>\n'):
    """An <annotation> of an image of `size` = (height, width)."""
    size_xml = ""
    if size is not None:
        size_xml = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
    return f"{head}<annotation>\n{size_xml}\n{''.join(objects)}\n</annotation>\n"


def photo(size=(40, 60), suffix=".png", seed=0):
    """The bytes of an image of noise."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


class VOCFolder:
    """A data set that is drawn image by image."""

    def __init__(self, root):
        self.root = root
        self.annotations = root / "Annotations"
        self.images = root / "JPEGImages"
        self.splits = root / "ImageSets" / "Main"
        for folder in (self.annotations, self.images, self.splits):
            folder.mkdir(parents=True)

    def add(self, image_id, xml=None, image=None, suffix=".jpg"):
        """Write an annotation (text or bytes) and an image; by default sound ones, one dog."""
        xml = annotation_xml(object_xml()) if xml is None else xml
        data = xml if isinstance(xml, bytes) else xml.encode()
        (self.annotations / f"{image_id}.xml").write_bytes(data)
        image = photo() if image is None else image
        (self.images / f"{image_id}{suffix}").write_bytes(image)

    def split(self, name, *rows):
        (self.splits / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))


def read_voc(sources, classes="auto", on_error="stop", kind="voc", **options):
    """Splits of VOC data sets, (root, split) each, joined into one."""
    found = tuple(Source(*source) for source in sources)
    return DATASETS[kind](DatasetRequest(kind, found, classes, on_error, **options))


# by tests of what only the checker and the converter read
TOLD_ELSEWHERE = ("unlisted-images", "bad-extras")


class VOCReport(NamedTuple):
    """What a VOC set has, by its reader alone."""

    num_images: int
    num_objects: int
    class_names: tuple
    faults: tuple


def check_voc(root, splits=None, classes="auto"):
    """Read a set with all that is wrong with it, every image decoded."""
    found = read_annotated(root, splits, classes, "voc", verify_images=True)
    return VOCReport(
        len(found.images) + found.num_skipped_images,
        sum(len(image.objects) for image in found.images) + found.num_skipped_objects,
        found.class_names,
        tuple(fault for fault in found.faults if fault.rule not in TOLD_ELSEWHERE),
    )
