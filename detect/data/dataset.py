"""The data set that training, evaluation and everything between work on."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.data.classes import unknown_class_remedy
from detect.data.faults import BrokenEntry, DataFaults, Fault
from detect.data.images import ImageError, read_image_size, read_unchanged_image
from detect.data.measuring import look_at_images, unreadable
from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta, Sample
from detect.wording import counted

Limbs = tuple[tuple[int, int], ...]
OnError = Literal["stop", "skip"]

SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The joints of a class and how they belong together.

    Attributes:
        joint_names: the name of each joint 0 … K−1.
        limbs: pairs of joints that a limb joins.
    """

    joint_names: tuple[str, ...] = ()
    limbs: Limbs = ()

    @property
    def joint_swaps(self) -> Limbs:
        """(left, right) pairs of joints whose names differ in just that.

        They exchange their places in the record when an image is mirrored.
        """
        numbers = {name: number for number, name in enumerate(self.joint_names)}
        partners = ((number, numbers.get(_mirrored_name(name))) for name, number in numbers.items())
        return tuple((left, right) for left, right in partners if right is not None)


def _mirrored_name(name: str) -> str:
    """The right partner's name of a left joint; of another joint the name that none has: ''."""
    for left, right in SIDES:
        if left in name:
            return name.replace(left, right)
    return ""


class DetectionDataset(Dataset[Sample]):
    """Images with their objects, as `Sample`s in the image's own frame.

    Objects and sizes are in memory; an image is decoded when its sample is asked for.
    `detect.data.read_dataset` reads one from a folder, `from_boxes` makes one of what is in memory.

    Args:
        class_names: the name of each label.
        metas: the origin and size of each image; each must have a path.
        truths: the objects of each image; with joints `[N, K, 3]` where there is a skeleton.
        skeleton: the joints of the objects, of all classes alike; None for boxes without joints.
        name: for people.
        faults: all that was found wrong, warnings included.
        num_skipped_images: images left out for a fault.
        num_skipped_objects: objects left out for a fault, in images that stayed.
        notes: what else its reader has to say, a line each.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        metas: Sequence[ImageMeta],
        truths: Sequence[GroundTruth],
        *,
        skeleton: Skeleton | None = None,
        name: str = "",
        faults: Sequence[Fault] = (),
        num_skipped_images: int = 0,
        num_skipped_objects: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        if len(metas) != len(truths):
            raise ValueError(f"{len(metas)} metas for {len(truths)} truths")
        self.class_names = tuple(class_names)
        self.skeleton = skeleton
        self.name = name
        self.metas = tuple(metas)
        num_joints = None if skeleton is None else len(skeleton.joint_names)
        self.truths = _PackedTruths(truths, num_joints)
        self.faults = tuple(faults)
        self.num_skipped_images = num_skipped_images
        self.num_skipped_objects = num_skipped_objects
        self.notes = tuple(notes)

    @classmethod
    def from_boxes(
        cls,
        images: Iterable[tuple[str | Path, ArrayLike, Sequence[str | int]]],
        class_names: Sequence[str] | None = None,
        *,
        on_error: OnError = "stop",
        name: str = "",
    ) -> "DetectionDataset":
        """A data set of boxes that are in memory; the images stay files.

        Difficult objects and joints have no place here: `GroundTruth`s, given to the constructor,
        have it.

        Args:
            images: of each image the path of its file, its boxes `[N, 4]`, x1, y1, x2, y2 in
                pixels from 0, half-open (width = x2 − x1), and the class of each box, by its name
                or its label 0 … C−1.
            class_names: the name of each label; None for the names that occur, sorted.
            on_error: `stop` raises all faults together; `skip` leaves faulty boxes and unreadable
                images out, and the data set's `faults` say so.
            name: for people.

        Raises:
            DataFaults: boxes or images are faulty, and `on_error` is `stop`.
            DetectError: boxes and classes are not as many, or no image or no class is left.
        """
        listed = [(Path(path), boxes, list(classes)) for path, boxes, classes in images]
        if class_names is None:
            class_names = sorted({n for *_, own in listed for n in own if isinstance(n, str)})
        sizes = look_at_images([path for path, *_ in listed], read_image_size)
        records, faults, num_skipped = [], [], 0
        for row, image_id, size in zip(listed, _ids_of(listed), sizes, strict=True):
            if isinstance(size, ImageError):
                faults.append(unreadable(row[0], size))
                continue
            objects, own_faults = _checked_objects(*row, class_names, size)
            faults += own_faults
            num_skipped += len(own_faults)
            records.append(AnnotatedImage(image_id, row[0], row[0], size, (), tuple(objects)))
        part = AnnotatedSet(
            Path(name or "."),
            "boxes",
            tuple(class_names),
            tuple(records),
            tuple(faults),
            num_skipped_images=len(listed) - len(records),
            num_skipped_objects=num_skipped,
        )
        return cls.from_annotated([part], on_error, name=name)

    @classmethod
    def from_annotated(
        cls, parts: Sequence[AnnotatedSet], on_error: OnError, *, name: str = ""
    ) -> "DetectionDataset":
        """Join annotated sets into the one that training and evaluation use.

        Both difficult objects and crowds are difficult in a `GroundTruth`: training leaves them
        out, and evaluation ignores them.

        Args:
            parts: in the order that their images shall have; an image id may occur once in all.
            on_error: `stop` raises all errors together; `skip` leaves faulty objects and faulty
                images out, and says so in the data set's `faults`. Warnings never stop.
            name: for people.

        Raises:
            DataFaults: they have errors, and `on_error` is `stop`.
            DetectError: no image or no class is left.
        """
        images, joined_faults = _with_ids_once(parts)
        faults = [*(fault for part in parts for fault in part.faults), *joined_faults]
        errors = [fault for fault in faults if fault.severity == "error"]
        roots = [root for part in parts for root in part.roots]
        if errors and on_error == "stop":
            raise DataFaults(faults, roots, is_voc=all(part.data_format == "voc" for part in parts))
        places = ", ".join(dict.fromkeys(str(root) for root in roots))
        num_skipped = sum(part.num_skipped_images for part in parts) + len(joined_faults)
        if not images:
            first = f"; the first fault: {errors[0]}" if errors else ""
            raise DetectError(
                f"{places}: none of the {num_skipped} images is left after skipping the faulty "
                f"ones{first}"
            )
        class_names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
        if not class_names:
            raise DetectError(
                f"data.classes=auto found no object in the images of {places}; "
                "name the classes in data.classes, or add objects"
            )
        labels = {class_name: label for label, class_name in enumerate(class_names)}
        return cls(
            class_names,
            [ImageMeta(p.image_id, p.image_path, p.size, p.size) for p in images],
            [_truth(image, labels) for image in images],
            name=name,
            faults=faults,
            num_skipped_images=num_skipped,
            num_skipped_objects=sum(part.num_skipped_objects for part in parts),
        )

    def __len__(self) -> int:
        return len(self.metas)

    def __getitem__(self, index: int) -> Sample:
        """Read the image.

        Raises:
            DetectError: the image cannot be read any more, or is another one by now.
        """
        meta = self.metas[index]
        if meta.path is None:
            raise ValueError(f"image {meta.image_id} has no file")
        return Sample(read_unchanged_image(meta.path, meta.original_size), self.truths[index], meta)

    def __repr__(self) -> str:
        counts = (
            counted(len(self), "image"),
            counted(len(self.truths.labels), "object"),
            counted(len(self.class_names), "class"),
        )
        name = f"{self.name!r}, " if self.name else ""
        return f"{type(self).__name__}({name}{', '.join(counts)})"

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of each image, unique in the set."""
        return tuple(meta.image_id for meta in self.metas)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The name of each joint 0 … K−1; none without a skeleton."""
        return () if self.skeleton is None else self.skeleton.joint_names

    @property
    def limbs(self) -> Limbs:
        """Pairs of joints that a limb joins."""
        return () if self.skeleton is None else self.skeleton.limbs

    @property
    def joint_swaps(self) -> Limbs:
        """(left, right) pairs of joints that change places when an image is mirrored."""
        return () if self.skeleton is None else self.skeleton.joint_swaps

    def class_counts(self) -> dict[str, int]:
        """The number of objects of each class, in the order of the labels."""
        counts = np.bincount(self.truths.labels.numpy(), minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def without_difficult(self) -> "DetectionDataset":
        """The same images without the objects that are marked difficult, as training has it."""
        return self._with(self.metas, [truth.without_difficult() for truth in self.truths])

    def subset(self, indices: Iterable[int]) -> "DetectionDataset":
        """Some of the images, in the order of `indices`; `faults` stay those of the whole set."""
        chosen = list(indices)
        return self._with(
            [self.metas[index] for index in chosen], [self.truths[index] for index in chosen]
        )

    def _with(
        self, metas: Sequence[ImageMeta], truths: Sequence[GroundTruth]
    ) -> "DetectionDataset":
        changed = copy.copy(self)
        changed.metas = tuple(metas)
        changed.truths = _PackedTruths(truths, self.truths.num_joints)
        return changed


class _PackedTruths(Sequence[GroundTruth]):
    """The objects of all images in three tensors, or four with joints.

    A data loader's worker process receives the data set with every tensor as an open file; one
    set of tensors for each image would exhaust the system's limit.
    """

    def __init__(self, truths: Sequence[GroundTruth], num_joints: int | None) -> None:
        self.num_joints = num_joints
        parts = (GroundTruth.empty(), *truths)  # torch.cat needs at least one
        self.boxes: Float[Tensor, "N 4"] = torch.cat([truth.boxes for truth in parts])
        self.labels: Int[Tensor, "N"] = torch.cat([truth.labels for truth in parts])
        self.difficult: Bool[Tensor, "N"] = torch.cat([truth.difficult for truth in parts])
        self.joints: Float[Tensor, "N K 3"] | None = None
        if num_joints is not None:
            joints = [joints_of(truth) for truth in truths]
            self.joints = torch.cat([torch.zeros(0, num_joints, 3), *joints])
        self.ends = np.cumsum([len(truth) for truth in parts])  # [number of images + 1]

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> GroundTruth: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GroundTruth]: ...
    def __getitem__(self, index: int | slice) -> GroundTruth | Sequence[GroundTruth]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        position = range(len(self))[index]
        rows = slice(int(self.ends[position]), int(self.ends[position + 1]))
        # copies, so that nobody writes into the set
        return GroundTruth(
            self.boxes[rows].clone(),
            self.labels[rows].clone(),
            self.difficult[rows].clone(),
            None if self.joints is None else self.joints[rows].clone(),
        )


def joints_of(truth: GroundTruth) -> Float[Tensor, "N K 3"]:
    """The joints of a truth that must have some."""
    if truth.joints is None:
        raise ValueError("expected a truth with joints, found None")
    return truth.joints


# ---- from annotated images --------------------------------------------------------------------


def _with_ids_once(parts: Sequence[AnnotatedSet]) -> tuple[list[AnnotatedImage], list[Fault]]:
    first: dict[str, AnnotatedImage] = {}
    faults = []
    for image in (image for part in parts for image in part.images):
        earlier = first.setdefault(image.image_id, image)
        if earlier is not image:
            value = f"the image {image.image_id} is there too: {earlier.image_path}"
            remedy = "the ids of joined sets must differ: rename the image in one"
            file = str(image.image_path)
            faults.append(Fault(file, None, "duplicate-image", value, remedy))
    return list(first.values()), faults


def _truth(image: AnnotatedImage, labels: Mapping[str, int]) -> GroundTruth:
    objects = image.objects
    return GroundTruth(
        torch.tensor([item.box for item in objects], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([labels[item.name] for item in objects], dtype=torch.int64),
        torch.tensor([item.difficult or item.crowd for item in objects], dtype=torch.bool),
    )


# ---- from boxes in memory ---------------------------------------------------------------------


def _ids_of(listed: Sequence[tuple[Path, ArrayLike, Sequence[str | int]]]) -> list[str]:
    """The names of the files, or where these are not unique, their paths; without suffixes."""
    stems = [path.stem for path, *_ in listed]
    if len(set(stems)) == len(stems):
        return stems
    return [path.with_suffix("").as_posix() for path, *_ in listed]


def _checked_objects(
    path: Path,
    boxes: ArrayLike,
    classes: Sequence[str | int],
    class_names: Sequence[str],
    size: tuple[int, int],
) -> tuple[list[AnnotatedObject], list[Fault]]:
    """The objects of an image that are in order, and the faults of the others.

    Raises:
        DetectError: boxes and classes are not as many, or no numbers.
    """
    try:
        rows = np.asarray(boxes, np.float64).reshape(len(classes), 4)
    except (TypeError, ValueError) as error:
        raise DetectError(
            f"{path}: expected boxes [N, 4], x1, y1, x2, y2 in pixels, and a class for each, found "
            f"{counted(len(classes), 'class')} and boxes of the shape {np.shape(boxes)}"
        ) from error
    objects, faults = [], []
    for number, (box, stated) in enumerate(zip(rows.tolist(), classes, strict=True), start=1):
        title = f"object {number}"
        try:
            name = _name_of(stated, class_names)
            title = f"object {number} ({name})"
            objects.append(AnnotatedObject(title, name, _checked_box(box, size)))
        except BrokenEntry as broken:
            faults.append(broken.at(path, title))
    return objects, faults


def _name_of(stated: str | int, class_names: Sequence[str]) -> str:
    if isinstance(stated, str):
        if stated in class_names:
            return stated
        value, remedy = f"unknown class {stated!r}", unknown_class_remedy(stated, class_names)
        raise BrokenEntry("unknown-class", value, remedy)
    if 0 <= int(stated) < len(class_names):
        return class_names[int(stated)]
    value = f"class {stated}, and there are {counted(len(class_names), 'class')}"
    raise BrokenEntry("unknown-class", value, "give class_names a name for each label 0 … C−1")


def _checked_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    height, width = size
    value = f"the box {x1:g}, {y1:g}, {x2:g}, {y2:g} in an image {width} wide and {height} high"
    if not np.isfinite(box).all():
        raise BrokenEntry("not-a-number", value, "give finite numbers of pixels")
    if not (np.float32(x1) < np.float32(x2) and np.float32(y1) < np.float32(y2)):
        raise BrokenEntry("zero-size-box", value, "give x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    if min(x1, y1) < 0 or x2 > width or y2 > height:
        raise BrokenEntry("box-outside-image", value, f"keep x in 0 … {width}, y in 0 … {height}")
    return x1, y1, x2, y2
