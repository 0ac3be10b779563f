"""Data sets of persons (or animals, or things) with their joints, in COCO's keypoint format.

```
annotations/person_keypoints_train.json     images, boxes and joints of a split, in one file
images/000000000012.jpg                     the images, by the file names that it gives
```

Lin et al. 2014, "Microsoft COCO: Common objects in context", and cocodataset.org/#format-data
describe the format. A box is (x, y, width, height), continuous and counted from 0, and becomes
(x, y, x + width, y + height). A joint is (x, y, visibility), and its x and y are the indices of a
pixel, counted from 0: half a pixel is added, which gives the pixel's center in the continuous frame
of the boxes. Detectron2 reads them so too (`load_coco_json`).

As for VOC data sets, everything that is wrong is found before training and reported at once: faults
of images and annotations as `Fault` records; a file that is no such data set at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detect.data.classes import listed_class_names, unknown_class_remedy
from detect.data.dataset import SIDES, DetectionDataset, OnError, Skeleton
from detect.data.faults import BrokenEntry, Complaint, DataFaults, Fault, Progress
from detect.data.formats.coco_fields import (
    ImageRecord,
    get_box,
    get_flag,
    get_id,
    get_numbers,
    get_text,
    kind_of,
    measure_images,
    read_content,
    read_image_entries,
    some_of,
)
from detect.data.images import describe_size, read_image_size, verify_image
from detect.data.loading.person_crops import PersonCrops
from detect.data.readers import DATASETS, DatasetRequest
from detect.errors import DetectError
from detect.structures import GroundTruth

# The center of a pixel, whose index COCO gives for a joint.
PIXEL_CENTER = 0.5


def read_coco_keypoints(
    annotation_file: Path,
    image_folder: Path,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "stop",
    *,
    verify_images: bool = True,
    progress: Progress | None = None,
) -> DetectionDataset:
    """Read one split of a data set in COCO's keypoint format.

    Objects that training shall not learn from and evaluation shall not demand are marked difficult:
    those with `iscrowd`, whose box holds many, and those without a labeled joint, which COCO has
    for small persons. A labeled joint outside the image becomes one that is not labeled, with a
    warning: there is nothing to see. A box that passes the border by up to a pixel is cut off.

    Args:
        annotation_file: the JSON file of the split.
        image_folder: where its images lie.
        class_names: the names of the labels 0 … C−1, for a validation split those of the training
            split; without them, the file's categories that have keypoints, in its order. Given, a
            category of another name is an error, and skipping leaves its objects out.
        on_error: `stop` raises all errors together; `skip` leaves faulty objects and faulty
            images out, and says so in the data set's `faults`. Warnings never stop.
        verify_images: decode every image once. Otherwise only the headers are read.
        progress: called with the number of images looked at and the number of all.

    Raises:
        DataFaults: there are errors in images or annotations, and `on_error` is `stop`.
        DetectError: the file is missing, is not JSON or has no such content, the classes make no
            sense or have different keypoints, or no image is left.
    """
    names = None if class_names is None else listed_class_names(class_names)
    content = read_content(annotation_file, "COCO's keypoint format")
    if not image_folder.is_dir():
        found = "a file" if image_folder.exists() else "nothing"
        raise DetectError(
            f"{image_folder}: expected the folder of the images of {annotation_file}, found {found}"
        )
    classes = _read_classes(annotation_file, content["categories"], names)
    images = read_image_entries(
        annotation_file, content["images"], lambda name: image_folder / name, _Image
    )
    measure_images(images, verify_image if verify_images else read_image_size, progress)
    strays = _read_objects(annotation_file, content["annotations"], images, classes)
    faults = [*classes.faults, *(fault for p in images for fault in p.faults), *strays]
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors and on_error == "stop":
        raise DataFaults(faults, [annotation_file], is_voc=False)
    good = [image for image in images if image.meta is not None]
    if not good:
        raise DetectError(
            f"{annotation_file}: none of the {len(images)} images is left after skipping the "
            f"faulty ones; the first fault: {errors[0]}"
        )
    return DetectionDataset(
        classes.names,
        [image.meta for image in good if image.meta is not None],
        [image.truth(len(classes.skeleton.joint_names)) for image in good],
        skeleton=classes.skeleton,
        name=annotation_file.stem,
        faults=faults,
        num_skipped_images=len(images) - len(good),
        num_skipped_objects=sum(image.num_faulty_objects for image in good),
    )


def annotation_file(root: Path, split: str) -> Path:
    """The file with the figures or persons of a split."""
    return root / "annotations" / f"person_keypoints_{split}.json"


def image_folder(root: Path) -> Path:
    """Where the images of all splits lie."""
    return root / "images"


@DATASETS.register("coco_keypoints")
def read_keypoint_split(
    request: DatasetRequest, *, person_crops: float | None = None
) -> DetectionDataset:
    """Read a split in COCO's keypoint format, whole images or one image for each person."""
    root, file = request.source.root, annotation_file(request.source.root, request.split)
    request.say(f"Checking {file}")
    dataset = read_coco_keypoints(
        file,
        image_folder(root),
        request.class_names,
        request.on_error,
        verify_images=request.verify_images is not False,
        progress=request.progress,
    )
    dataset.name = request.name
    return dataset if person_crops is None else PersonCrops(dataset, person_crops)


# ---- categories -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Classes:
    """The categories of a file.

    Attributes:
        names: the name of each label.
        skeleton: that of all classes.
        labels: by category id; None for a category that is left out.
        titles: the name of each category id.
        ids_without_keypoints: the categories that name no joints.
        faults: of the categories.
    """

    names: tuple[str, ...]
    skeleton: Skeleton
    labels: dict[int | str, int | None]
    titles: dict[int | str, str]
    ids_without_keypoints: frozenset[int | str]
    faults: list[Fault]


def _read_classes(
    path: Path, categories: Sequence[Any], class_names: Sequence[str] | None
) -> _Classes:
    """Match the categories with the class names.

    Raises:
        DetectError: a category makes no sense, none has keypoints, or they differ in them.
    """
    faults: list[Fault] = []
    titles: dict[int | str, str] = {}
    skeletons: dict[str, Skeleton] = {}
    for number, category in enumerate(categories, start=1):
        try:
            name, category_id = get_text(category, "name"), get_id(category, "id")
            if name in titles.values() or category_id in titles:
                value = f"the name {name!r} or the id {category_id!r} is taken by another category"
                raise BrokenEntry("duplicate-category", value, "give each its own")
            titles[category_id] = name
            if "keypoints" in category:
                skeletons[name] = _read_skeleton(category)
        except BrokenEntry as broken:
            raise DetectError(str(broken.at(path, f"category {number}"))) from broken
    used = [name for name in skeletons if class_names is None or name in class_names]
    skeleton = _common_skeleton(path, skeletons, used)
    names = tuple(used if class_names is None else class_names)
    for name in (name for name in titles.values() if name not in used):
        faults.append(_unused_category(path, name, name in skeletons, names))
    for name in (name for name in names if name not in used):
        value = f"there is no category {name!r} with keypoints"
        remedy = "its results will be unknown; correct the name if that is not meant"
        faults.append(Fault(str(path), None, "missing-class", value, remedy, "warning"))
    faults += _one_sided_joints(path, skeleton)
    labels = {key: names.index(name) if name in used else None for key, name in titles.items()}
    others = frozenset(key for key, name in titles.items() if name not in skeletons)
    return _Classes(names, skeleton, labels, titles, others, faults)


def _read_skeleton(category: Mapping[str, Any]) -> Skeleton:
    names = category["keypoints"]
    is_named = isinstance(names, list) and all(isinstance(n, str) and n.strip() for n in names)
    if not is_named or not names or len(set(names)) < len(names):
        value = f"keypoints is {names!r:.80}"
        raise BrokenEntry("bad-keypoints", value, "list the name of each joint, each once")
    limbs = category.get("skeleton", [])
    remedy = f"list pairs of joint numbers; COCO counts them from 1, here to {len(names)}"
    if not isinstance(limbs, list):
        raise BrokenEntry("bad-skeleton", f"skeleton is {kind_of(limbs)}", remedy)
    for limb in limbs:
        if (
            not isinstance(limb, list)
            or len(limb) != 2
            or not all(type(end) is int and 1 <= end <= len(names) for end in limb)
        ):
            raise BrokenEntry("bad-skeleton", f"skeleton holds {limb!r:.40}", remedy)
    return Skeleton(tuple(names), tuple((first - 1, second - 1) for first, second in limbs))


def _common_skeleton(
    path: Path, skeletons: Mapping[str, Skeleton], used: Sequence[str]
) -> Skeleton:
    if not skeletons:
        raise DetectError(
            f"{path}: expected a category with 'keypoints', the names of its joints, found none; "
            "COCO's instances_*.json have no joints: take person_keypoints_*.json"
        )
    if not used:
        raise DetectError(
            f"{path}: expected a category with keypoints of the class names that were asked for, "
            f"found only {some_of(skeletons)}; correct the class names"
        )
    first = skeletons[used[0]]
    for name in used[1:]:
        other = skeletons[name]
        if other.joint_names != first.joint_names:
            raise DetectError(
                f"{path}: expected categories with the same keypoints, found "
                f"{used[0]!r} with {len(first.joint_names)} ({some_of(first.joint_names)}) and "
                f"{name!r} with {len(other.joint_names)} ({some_of(other.joint_names)}); "
                "split the file by category, or name one class and skip the others"
            )
    return first


def _unused_category(
    path: Path, name: str, has_keypoints: bool, class_names: Sequence[str]
) -> Fault:
    title = f"category {name}"
    if not has_keypoints:
        value, remedy = "it has no keypoints; it is no class", "delete it, or name its joints"
        return Fault(str(path), title, "category-without-keypoints", value, remedy, "warning")
    remedy = unknown_class_remedy(name, class_names)
    return Fault(str(path), title, "unknown-class", f"unknown class {name!r}", remedy)


def _one_sided_joints(path: Path, skeleton: Skeleton) -> list[Fault]:
    """A warning for joints of one side that have no partner on the other."""
    paired = {number for pair in skeleton.joint_swaps for number in pair}
    alone = [
        name
        for number, name in enumerate(skeleton.joint_names)
        if number not in paired and any(side in name for sides in SIDES for side in sides)
    ]
    if not alone:
        return []
    value = f"{some_of(alone)}: there is no such joint of the other side"
    remedy = "name pairs as left_x and right_x, or don't mirror the images"
    return [Fault(str(path), "keypoints", "one-sided-joint", value, remedy, "warning")]


# ---- images ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Image(ImageRecord):
    """An image with the objects that are in order; `meta` is None when it cannot be used."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    joints: list[np.ndarray] = field(default_factory=list)  # each [K, 3]

    def truth(self, num_joints: int) -> GroundTruth:
        return GroundTruth(
            torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(self.labels, dtype=torch.int64),
            torch.tensor(self.difficult, dtype=torch.bool),
            torch.tensor(np.array(self.joints), dtype=torch.float32).reshape(-1, num_joints, 3),
        )


# ---- annotations ------------------------------------------------------------------------------


def _read_objects(
    path: Path, entries: Sequence[Any], images: Sequence[_Image], classes: _Classes
) -> list[Fault]:
    """Give every image its objects; return the faults of those that belong to no image."""
    by_key = {image.key: image for image in images if image.key is not None}
    strays: list[Fault] = []
    for number, entry in enumerate(entries, start=1):
        title = f"annotation {number}"
        try:
            if isinstance(entry, dict) and "id" in entry:
                title += f" (id {entry['id']!r:.20})"
            key = get_id(entry, "image_id")
            if key not in by_key:
                value = f"there is no image with the id {key!r:.20}"
                raise BrokenEntry("unknown-image", value, "add the image, or delete the annotation")
        except BrokenEntry as broken:
            strays.append(broken.at(path, title))
            continue
        image = by_key[key]
        try:
            warnings = _read_object(entry, image, classes)
            image.faults += [Fault(str(path), title, *warning, "warning") for warning in warnings]
        except BrokenEntry as broken:
            image.num_faulty_objects += 1
            image.faults.append(broken.at(path, title))
        except _LeftOut:
            image.num_faulty_objects += 1
    return strays


class _LeftOut(Exception):  # noqa: N818 — its fault was said once, with the category
    pass


def _read_object(entry: Any, image: _Image, classes: _Classes) -> list[Complaint]:
    """Add an object to its image; return warnings: rule, value and remedy of each.

    Raises:
        BrokenEntry: it is faulty.
        _LeftOut: its category is no class.
    """
    label = _read_label(entry, classes)
    names = classes.skeleton.joint_names
    numbers = get_numbers(entry, "keypoints", 3 * len(names), f"{len(names)} joints x, y, v")
    joints = np.array(numbers).reshape(-1, 3)  # [K, 3]
    unknown = [name for name, v in zip(names, joints[:, 2], strict=True) if v not in (0, 1, 2)]
    if unknown:
        value = f"the visibility of {unknown[0]} is {joints[names.index(unknown[0]), 2]:g}"
        remedy = "write 0 (not labeled), 1 (labeled, hidden) or 2 (visible)"
        raise BrokenEntry("bad-visibility", value, remedy)
    crowd = get_flag(entry, "iscrowd")
    box, warnings = get_box(entry, image.stated_size)
    warnings += _stated_count(entry, joints)
    joints[:, :2] += PIXEL_CENTER
    warnings += _outside_joints(joints, names, image.stated_size)
    joints[joints[:, 2] == 0] = 0
    image.boxes.append(box)
    image.labels.append(label)
    image.difficult.append(crowd or not joints[:, 2].any())
    image.joints.append(joints)
    return warnings


def _read_label(entry: Any, classes: _Classes) -> int:
    category_id = get_id(entry, "category_id")
    if category_id not in classes.labels:
        known = ", ".join(f"{key!r} ({name})" for key, name in list(classes.titles.items())[:10])
        value = f"there is no category with the id {category_id!r:.20}"
        raise BrokenEntry("unknown-category", value, f"correct it; there are: {known}")
    label = classes.labels[category_id]
    if label is not None:
        return label
    if category_id in classes.ids_without_keypoints:
        value = f"its category {classes.titles[category_id]!r} has no keypoints"
        raise BrokenEntry("class-without-keypoints", value, "name the joints of the category")
    raise _LeftOut


def _stated_count(entry: Mapping[str, Any], joints: np.ndarray) -> list[Complaint]:
    labeled = int((joints[:, 2] > 0).sum())
    stated = entry.get("num_keypoints", labeled)
    if stated == labeled:
        return []
    value = f"num_keypoints is {stated!r:.20}, but {labeled} joints are labeled"
    return [("num-keypoints", value, "correct it; the joints themselves are taken")]


def _outside_joints(
    joints: np.ndarray, names: Sequence[str], size: tuple[int, int] | None
) -> list[Complaint]:
    """Make labeled joints outside the image not labeled; return a warning if there are any."""
    if size is None:
        return []
    points = joints[:, :2]
    inside = ((points >= 0) & (points <= (size[1], size[0]))).all(axis=1)
    outside = (joints[:, 2] > 0) & ~inside
    if not outside.any():
        return []
    joints[outside, 2] = 0
    who = some_of(name for name, is_out in zip(names, outside, strict=True) if is_out)
    x, y = points[outside][0] - PIXEL_CENTER
    value = f"{who} at {x:g}, {y:g} in an image {describe_size(size)}; taken as not labeled"
    return [("joint-outside-image", value, "correct the place, or write 0, 0, 0")]
