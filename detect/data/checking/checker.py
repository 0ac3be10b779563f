"""All rules over one data set, of whatever format."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from detect.data.annotated import AnnotatedSet
from detect.data.checking.boxes import check_boxes
from detect.data.checking.class_names import check_class_names
from detect.data.checking.finding import Box, CheckReport, Finding, error
from detect.data.checking.images import check_images
from detect.data.checking.inspection import InspectedImage, inspect_images
from detect.data.checking.listing import check_listing
from detect.data.checking.splits import check_splits
from detect.data.faults import Fault, Progress
from detect.data.formats.voc_annotation import read_voc_objects
from detect.data.images import IMAGE_SUFFIXES, ImageError

# The reader counts what no split lists; the checker names it.
_SAID_BETTER = "unlisted-images"


def check_annotated(
    annotated: AnnotatedSet, *, is_whole: bool = True, progress: Progress | None = None
) -> CheckReport:
    """Find what is wrong with a data set, and what is legal but rarely intended.

    Every image is read and decoded once, in a few threads.

    Args:
        annotated: the set as its reader found it; its headers suffice, since images are decoded
            here.
        is_whole: whether all splits were read, so that files that none of them lists are faults.
        progress: called with the number of images looked at and the number of all.
    """
    paths = [image.image_path for image in annotated.images]
    looked_at = inspect_images(paths, progress)
    inspected = {path: r for path, r in looked_at.items() if isinstance(r, InspectedImage)}
    findings = list(_from_reader(annotated, is_whole))
    findings += [
        error(path, None, "unreadable-image", result.value, result.remedy)
        for path, result in looked_at.items()
        if isinstance(result, ImageError)
    ]
    findings += check_boxes(annotated)
    findings += check_class_names(annotated)
    findings += check_splits(annotated)
    findings += check_images(annotated, inspected)
    if is_whole:
        findings += check_listing(annotated)
    return CheckReport(
        annotated.root,
        num_images=len(annotated.images) + annotated.num_skipped_images,
        num_empty_images=sum(not image.objects for image in annotated.images),
        num_objects=annotated.num_skipped_objects
        + sum(len(image.objects) for image in annotated.images),
        class_names=annotated.class_names,
        findings=tuple(findings),
    )


# ---- what the reader found, with the place that shows it --------------------------------------


def _from_reader(annotated: AnnotatedSet, is_whole: bool) -> Iterator[Finding]:
    faults = [f for f in annotated.faults if not (is_whole and f.rule == _SAID_BETTER)]
    finder = _PlaceFinder(annotated)
    for fault in faults:
        yield finder.find(fault)


class _PlaceFinder:
    """Finds the image and the box that a reader's fault is about, as far as the files tell."""

    def __init__(self, annotated: AnnotatedSet) -> None:
        self._annotated = annotated
        self._images: dict[str, Path] = {}  # by files that are of one image
        self._places: dict[tuple[str, str], tuple[Path, Box]] = {}  # by file and object
        files = {fault.file for fault in annotated.faults}
        for image in annotated.images:
            self._images[str(image.image_path)] = image.image_path
            file = str(image.annotation_path)
            if annotated.data_format != "coco":  # its file is that of all images
                self._images[file] = image.image_path
            if file in files:
                for item in image.objects:
                    self._places[file, item.title] = (image.image_path, item.box)
        self._voc_boxes: tuple[str, Mapping[str, Box]] = ("", {})  # of the file looked at last

    def find(self, fault: Fault) -> Finding:
        if fault.object is not None and (fault.file, fault.object) in self._places:
            image, box = self._places[fault.file, fault.object]
            return Finding(fault, (image,), (box,))
        found = self._image_of(fault.file)
        if found is None:
            return Finding(fault)
        faulty_box = self._faulty_box(fault)
        return Finding(fault, (found,), () if faulty_box is None else (faulty_box,))

    def _image_of(self, file: str) -> Path | None:
        if file in self._images:
            return self._images[file]
        path = Path(file)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return path
        # an image that was left out, since its annotation is faulty as a whole
        if self._annotated.data_format == "voc" and path.suffix == ".xml":
            folder = self._annotated.root / "Annotations"
            if path.is_relative_to(folder):
                stem = self._annotated.root / "JPEGImages" / path.relative_to(folder)
                candidates = (stem.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)
                return next((image for image in candidates if image.is_file()), None)
        return None

    def _faulty_box(self, fault: Fault) -> Box | None:
        """The box of an object that was left out; only VOC's files are read again for it."""
        if self._annotated.data_format != "voc" or fault.object is None:
            return None
        if self._voc_boxes[0] != fault.file:  # faults come file by file
            self._voc_boxes = (fault.file, _voc_boxes(Path(fault.file)))
        return self._voc_boxes[1].get(fault.object)


def _voc_boxes(path: Path) -> dict[str, Box]:
    """The boxes of an annotation by title, faulty ones included, half-open."""
    return {
        item.title: (xmin - 1, ymin - 1, xmax, ymax)
        for item in read_voc_objects(path)
        if item.coordinates is not None
        for xmin, ymin, xmax, ymax in [item.coordinates]
    }
