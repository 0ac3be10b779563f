"""A VOC data set in which the checker finds nothing, to be broken by a test."""

import cv2
import numpy as np

from detect.data.checking import check_annotated
from detect.data.formats.voc import read_annotated_voc
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml

SIZE = (120, 160)  # height, width
DOG_BOX = (11, 21, 60, 80)
CAT_BOX = (81, 31, 140, 100)
SPLITS = {"train": range(8), "val": range(8, 12), "test": range(12, 16)}


def scene(seed, size=SIZE):
    """An image of blurred noise, RGB: no two seeds look alike."""
    cells = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC)


def encoded(image, suffix=".jpg", quality=95):
    """The bytes of an RGB (or gray, or RGBA) image."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image, options)[
        1
    ].tobytes()


def sound_xml(*objects, size=SIZE):
    """An annotation with the two usual objects and some more."""
    return annotation_xml(
        object_xml("dog", DOG_BOX), object_xml("cat", CAT_BOX), *objects, size=size
    )


class CheckedFolder(VOCFolder):
    """Sixteen sound images in three splits."""

    def __init__(self, root):
        super().__init__(root)
        for number in range(16):
            self.add(f"{number:06}", sound_xml(), encoded(scene(number)))
        for name, numbers in SPLITS.items():
            self.split(name, *(f"{number:06}" for number in numbers))
        self.split("trainval", *(f"{number:06}" for number in range(12)))

    def write(self, number, *objects, image=None, suffix=".jpg"):
        """Replace an image, or give it further objects."""
        image = encoded(scene(number), suffix) if image is None else image
        self.add(f"{number:06}", sound_xml(*objects), image, suffix)

    def check(self, splits=None, classes="auto", **options):
        annotated = read_annotated_voc(self.root, splits, classes)
        return check_annotated(annotated, is_whole=splits is None, **options)

    def findings(self, splits=None, classes="auto"):
        return self.check(splits, classes).findings

    def only(self, rule, severity="warning", **options):
        """The one finding there is."""
        (finding,) = self.findings(**options)
        assert (finding.fault.rule, finding.fault.severity) == (rule, severity)
        assert finding.fault.value
        assert finding.fault.remedy
        return finding

    def image(self, number, suffix=".jpg"):
        return self.images / f"{number:06}{suffix}"

    def annotation(self, number):
        return self.annotations / f"{number:06}.xml"
