"""`detect infer`: find objects in images and write what was found in any of seven forms."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console

from detect.cli.judged_split import COCO_RESULTS_SUFFIX, coco_ids
from detect.data import read_image
from detect.errors import DetectError
from detect.evaluation import (
    DetectionSet,
    fuse_detections,
    write_coco_results,
    write_detections_csv,
    write_detections_json,
)
from detect.experiment.model import Model, load
from detect.experiment.run import describe_device
from detect.experiment.sources import find_images
from detect.files import write_text
from detect.progress import showing
from detect.structures import Detections
from detect.training import present_processes
from detect.visualization import crop_detections, draw_detections, save_image
from detect.wording import counted, listed

VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


# name, file and detections of an image
Found = tuple[str, Path, Detections]


@dataclass(frozen=True)
class Finding:
    """What was found in one image.

    Attributes:
        name: unique among the sources, without suffix; names the files that are written.
        path: of the image.
        image: RGB.
        detections: in the image's own frame.
    """

    name: str
    path: Path
    image: UInt8[np.ndarray, "H W 3"]
    detections: Detections


class Writer:
    """Writes findings in one form into a folder."""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder = folder
        self.class_names = tuple(class_names)

    def write(self, finding: Finding) -> None:
        """Write what belongs to one image."""

    def write_all(self, found: Sequence[Found]) -> None:
        """Write what belongs to all images together."""


class ImageWriter(Writer):
    """`images/NAME.jpg`, with boxes drawn."""

    def write(self, finding: Finding) -> None:
        """Draw and write one image."""
        image = draw_detections(finding.image, finding.detections, self.class_names)
        save_image(self.folder / "pictures" / f"{finding.name}.jpg", image)


class CropWriter(Writer):
    """`crops/NAME_<number>_<class>.jpg`, by falling score."""

    def write(self, finding: Finding) -> None:
        """Cut out and write each detection."""
        crops = crop_detections(finding.image, finding.detections)
        for number, (crop, label) in enumerate(
            zip(crops, finding.detections.labels.tolist(), strict=True), start=1
        ):
            name = self.class_names[label].replace("/", "_")
            save_image(self.folder / "crops" / f"{finding.name}_{number}_{name}.jpg", crop)


class JSONWriter(Writer):
    """`detections.json`, the form that `detect evaluate --detections` reads."""

    def write_all(self, found: Sequence[Found]) -> None:
        """Write the file."""
        write_detections_json(self.folder / "detections.json", _as_set(self.class_names, found))


class CSVWriter(Writer):
    """`detections.csv`, a row for each detection, which `detect evaluate --detections` reads."""

    def write_all(self, found: Sequence[Found]) -> None:
        """Write the file; its last column is the path of the image."""
        files = [path for _, path, _ in found]
        write_detections_csv(
            self.folder / "detections.csv", _as_set(self.class_names, found), files
        )


class COCOWriter(Writer):
    """`detections.coco.json`, COCO's results format."""

    def write_all(self, found: Sequence[Found]) -> None:
        """Write the file; where names of images are numbers, these are the image ids."""
        detections = _as_set(self.class_names, found)
        path = self.folder / f"detections{COCO_RESULTS_SUFFIX}"
        write_coco_results(path, detections, *coco_ids(detections))


class VOCWriter(Writer):
    """`voc/NAME.xml`: PASCAL VOC annotations, as a start for labeling; whole pixels, 1-based."""

    def write(self, finding: Finding) -> None:
        """Write one image's annotation."""
        height, width = finding.image.shape[:2]
        root = ElementTree.Element("annotation")
        _add(root, "filename", finding.path.name)
        size = ElementTree.SubElement(root, "size")
        for tag, value in (("width", width), ("height", height), ("depth", 3)):
            _add(size, tag, str(value))
        for box, score, label in _rows(finding.detections):
            item = ElementTree.SubElement(root, "object")
            _add(item, "name", self.class_names[label])
            _add(item, "difficult", "0")
            _add(item, "score", f"{score:.6f}")
            corners = ElementTree.SubElement(item, "bndbox")
            x1, y1, x2, y2 = box
            (xmin, xmax), (ymin, ymax) = _whole_pixels(x1, x2, width), _whole_pixels(y1, y2, height)
            for tag, value in zip(VOC_CORNERS, (xmin, ymin, xmax, ymax), strict=True):
                _add(corners, tag, str(value))
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        write_text(self.folder / "voc" / f"{finding.name}.xml", text + "\n")


class YOLOWriter(Writer):
    """`labels/NAME.txt` in the form of Darknet: `class cx cy w h score`, shares of the image."""

    def write(self, finding: Finding) -> None:
        """Write one image's rows, none if nothing was found."""
        height, width = finding.image.shape[:2]
        lines = []
        for (x1, y1, x2, y2), score, label in _rows(finding.detections):
            values = (
                (x1 + x2) / 2 / width,
                (y1 + y2) / 2 / height,
                (x2 - x1) / width,
                (y2 - y1) / height,
                score,
            )
            lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in values) + "\n")
        write_text(self.folder / "labels" / f"{finding.name}.txt", "".join(lines))

    def write_all(self, found: Sequence[Found]) -> None:  # noqa: ARG002
        """Write the names of the classes."""
        write_text(self.folder / "labels" / "classes.txt", "\n".join(self.class_names) + "\n")


WRITERS: dict[str, type[Writer]] = {
    "pictures": ImageWriter,
    "json": JSONWriter,
    "csv": CSVWriter,
    "coco": COCOWriter,
    "voc": VOCWriter,
    "yolo": YOLOWriter,
    "crops": CropWriter,
}


def run_inference(
    paths: Sequence[Path],
    sources: Sequence[str],
    out: Path,
    score_threshold: float,
    save: str,
    fuse_iou: float,
    device: str,
    console: Console,
) -> int:
    """Find objects in all sources and write them; returns the number of unreadable images.

    The detections of several models are fused: `fuse_detections`.

    Several processes share the images. Each writes the files of its own; the first one writes
    those that are about all.
    """
    kinds = parse_kinds(save)
    files = find_images(sources)
    models = {str(path): load(path, device) for path in paths}
    model = next(iter(models.values()))
    if len(models) < len(paths):
        raise DetectError(f"--with: expected each model once, found {listed([*map(str, paths)])}")
    for name, other in models.items():
        if differing := sorted({*other.class_names} ^ {*model.class_names}):
            raise DetectError(
                f"{name}: expected the classes of {paths[0]}, to fuse the detections of both, "
                f"found {listed(differing)} in one of them alone"
            )
    processes = present_processes()
    console.print(f"Device: {describe_device(model.device)}; {counted(len(files), 'image')}")
    writers = [WRITERS[kind](out, model.class_names) for kind in kinds]
    own_unreadable: list[str] = []
    batches = processes.share(_batches(model, files))
    own_findings: list[list[tuple[str, Detections]]] = []
    read = partial(_detections, models, score_threshold, fuse_iou)
    for found in _findings(read, files, batches, own_unreadable, console):
        for finding in found:
            for writer in writers:
                writer.write(finding)
        own_findings.append([(finding.name, finding.detections) for finding in found])
    unreadable = [text for texts in processes.gather(own_unreadable) for text in texts]
    findings = [pair for batch in processes.gather_in_turn(own_findings) for pair in batch]
    if processes.is_first:
        for writer in writers:
            writer.write_all([(name, files[name], found) for name, found in findings])
    num_found = sum(len(found) for _, found in findings)
    num_read = len(files) - len(unreadable)
    console.print(
        f"{counted(num_found, 'object')} in {counted(num_read, 'image')} "
        f"({', '.join(kinds)}): {out}",
        highlight=False,
    )
    for message in unreadable:
        console.print(f"unreadable: {message}", style="red", markup=False, soft_wrap=True)
    if unreadable:
        console.print(f"{len(unreadable)} of {counted(len(files), 'image')} could not be read")
    return len(unreadable)


def parse_kinds(save: str) -> list[str]:
    """The forms named in `--save`.

    Raises:
        DetectError: one is unknown.
    """
    kinds = [kind.strip() for kind in save.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in WRITERS]
    if unknown or not kinds:
        raise DetectError(
            f"--save: expected some of {', '.join(WRITERS)} with commas between, "
            f"found '{unknown[0] if unknown else save}'"
        )
    return list(dict.fromkeys(kinds))


def _batches(model: Model, files: dict[str, Path]) -> list[list[str]]:
    size = model.config.evaluation.batch_size
    names = list(files)
    return [names[begin : begin + size] for begin in range(0, len(names), size)]


def _detections(
    models: dict[str, Model], score_threshold: float, fuse_iou: float, images: list[np.ndarray]
) -> list[Detections]:
    """Those of the only model, or of all fused; labels are those of the first."""
    model = next(iter(models.values()))
    if len(models) == 1:
        return model.predict(images, score_threshold=score_threshold)
    found = {}
    for name, other in models.items():
        labels = torch.tensor([model.class_names.index(one) for one in other.class_names])
        found[name] = [
            Detections(one.boxes.cpu(), one.scores.cpu(), labels[one.labels.cpu()])
            for one in other.predict(images, score_threshold=0)
        ]
    return [one.with_score_at_least(score_threshold) for one in fuse_detections(found, fuse_iou)]


def _findings(
    read: Callable[[list[np.ndarray]], list[Detections]],
    files: dict[str, Path],
    batches: Sequence[list[str]],
    unreadable: list[str],
    console: Console,
) -> Iterator[list[Finding]]:
    # batch by batch, so that memory is bounded; what cannot be read goes into `unreadable`
    total = sum(map(len, batches))
    with showing("Detecting", console, total=total) as progress:
        for row, batch in enumerate(batches):
            images = {}
            for name in batch:
                try:
                    images[name] = read_image(files[name])
                except DetectError as error:
                    unreadable.append(str(error))
            detections = read(list(images.values()))
            yield [
                Finding(name, files[name], image, found)
                for (name, image), found in zip(images.items(), detections, strict=True)
            ]
            progress(sum(map(len, batches[: row + 1])), total)


def _as_set(class_names: tuple[str, ...], found: Sequence[Found]) -> DetectionSet:
    return DetectionSet(
        class_names,
        tuple(name for name, _, _ in found),
        tuple(detections for _, _, detections in found),
    )


def _rows(detections: Detections) -> Iterator[tuple[list[float], float, int]]:
    yield from zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _whole_pixels(low: float, high: float, limit: int) -> tuple[int, int]:
    # half-open pixels low…high → first and last whole pixel, 1-based, within the image; at least
    # two where there is room, since a box of one pixel has no size to the data checker
    last = min(max(round(high), 2), limit)
    return max(min(round(low) + 1, last - 1), 1), last
