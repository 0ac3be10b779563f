"""All rules over one data set, of whatever format."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from detect.data.annotated import AnnotatedPicture, AnnotatedSet
from detect.data.checking.boxes import check_boxes
from detect.data.checking.class_names import check_class_names
from detect.data.checking.finding import Box, CheckReport, Finding, error
from detect.data.checking.inspection import InspectedImage, Progress, inspect_images
from detect.data.checking.listing import check_listing
from detect.data.checking.pictures import check_pictures
from detect.data.checking.splits import check_splits
from detect.data.faults import Fault
from detect.data.images import ImageError
from detect.data.voc import IMAGE_SUFFIXES, read_voc_objects

# The reader counts what no split lists; the checker names it.
_SAID_BETTER = "unlisted-pictures"


def check_annotated(
    annotated: AnnotatedSet, *, is_whole: bool = True, progress: Progress | None = None
) -> CheckReport:
    """Find what is wrong with a data set, and what is legal but seldom meant.

    Every picture is read and decoded once, in a few threads.

    Args:
        annotated: the set as its reader found it; its headers suffice, since pictures are decoded
            here.
        is_whole: whether all splits were read, so that files that none of them lists are faults.
        progress: called with the number of pictures looked at and the number of all.
    """
    paths = [picture.image_path for picture in annotated.pictures]
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
    findings += check_pictures(annotated, inspected)
    if is_whole:
        findings += check_listing(annotated)
    return CheckReport(
        annotated.root,
        num_images=len(annotated.pictures) + annotated.num_skipped_images,
        num_empty_images=sum(not picture.objects for picture in annotated.pictures),
        num_objects=annotated.num_skipped_objects
        + sum(len(picture.objects) for picture in annotated.pictures),
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
    """Finds the picture and the box that a reader's fault is about, as far as the files tell."""

    def __init__(self, annotated: AnnotatedSet) -> None:
        self._annotated = annotated
        self._by_file: dict[str, AnnotatedPicture] = {}
        for picture in annotated.pictures:
            self._by_file[str(picture.image_path)] = picture
            if annotated.data_format != "coco":  # its file is that of all pictures
                self._by_file[str(picture.annotation_path)] = picture
        self._boxes: dict[str, Mapping[str, Box]] = {}  # of one file, by the objects' titles

    def find(self, fault: Fault) -> Finding:
        image = self._image_of(fault.file)
        if image is None:
            return Finding(fault)
        box = None if fault.object is None else self._boxes_of(fault.file).get(fault.object)
        return Finding(fault, (image,), () if box is None else (box,))

    def _image_of(self, file: str) -> Path | None:
        if file in self._by_file:
            return self._by_file[file].image_path
        path = Path(file)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return path
        # a picture that was left out, since its annotation is faulty as a whole
        if self._annotated.data_format == "voc" and path.suffix == ".xml":
            folder = self._annotated.root / "Annotations"
            if path.is_relative_to(folder):
                stem = self._annotated.root / "JPEGImages" / path.relative_to(folder)
                candidates = (stem.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)
                return next((image for image in candidates if image.is_file()), None)
        return None

    def _boxes_of(self, file: str) -> Mapping[str, Box]:
        if file not in self._boxes:
            if self._annotated.data_format == "voc":
                self._boxes = {file: _voc_boxes(Path(file))}  # faults come file by file
            else:
                picture = self._by_file.get(file)
                objects = () if picture is None else picture.objects
                self._boxes = {file: {item.title: item.box for item in objects}}
        return self._boxes[file]


def _voc_boxes(path: Path) -> dict[str, Box]:
    """The boxes of an annotation by title, faulty ones included, half-open."""
    return {
        item.title: (xmin - 1, ymin - 1, xmax, ymax)
        for item in read_voc_objects(path)
        if item.coordinates is not None
        for xmin, ymin, xmax, ymax in [item.coordinates]
    }
