"""The built-in data set: drawn shapes in full VOC layout, made on first use. Floor 2.

An image shows up to six circles, squares, triangles, stars, crosses and rings of many sizes,
textured, turned, one over another and cut by the border, before a background of blobs and strokes
that are no objects. Color and texture are drawn without regard to the class, so that only the form
tells it. About 3 % of the images have no object.

Image k depends on the seed, on k and on the image size, and on nothing else: a larger set begins
with the images of a smaller one, and the same settings give the same bytes (as long as the
releases of numpy and OpenCV are the same, which own the random numbers and the JPEG encoder).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Int16, UInt8

from detect.data.dataset import DetectionDataset
from detect.data.readers import DATASETS, DatasetRequest, read_request
from detect.data.synthetic.drawn_sets import DrawnSet, write_jpeg
from detect.data.synthetic.painting import (
    Canvas,
    background,
    contrasting_color,
    mix,
    pattern_of,
    photograph,
    polygon,
    rotation,
)
from detect.errors import DetectError
from detect.files import write_json, write_text

SHAPE_CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")

# The version counts up with every change of the drawing: an older set is not taken for a new one.
DRAWN_SET = DrawnSet("shapes", "a shapes set", "shapes.json", version=2)

# An object of whose area more than this is hidden or outside the image is marked difficult.
DIFFICULT_ABOVE = 0.65

# Less than this of an object is never left visible: neither a person nor a detector could name it,
# and since every object is annotated, the annotation would be wrong in spirit.
MIN_VISIBLE_PIXELS = 20
MIN_VISIBLE_SHARE = 0.1
MIN_BOX_SIDE = 4

MAX_OBJECTS = 6
EMPTY_SHARE = 0.03

# Diameters as shares of the shorter side of the image: 19 to 74 pixels at 128.
DIAMETERS = (0.15, 0.58)
MIN_DIAMETER = 10.0

SPLIT_NAMES = ("train", "val", "trainval", "test")

Contours = list[np.ndarray]  # each [N, 2], (x, y); a second contour is a hole
Boxes = list[tuple[int, int, int, int]]  # (x1, y1, x2, y2), half-open pixels
Crowding = Literal["none", "border", "another"]


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """One object of a drawn image.

    Attributes:
        label: index into `SHAPE_CLASSES`.
        area: pixels of the whole object, as if nothing hid it and the image went on.
        visible_area: pixels of it that can be seen.
        box: (x1, y1, x2, y2), half-open extent of the pixels that can be seen.
        truncated: whether the border of the image cuts it.
    """

    label: int
    area: int
    visible_area: int
    box: tuple[int, int, int, int]
    truncated: bool

    @property
    def difficult(self) -> bool:
        """Whether more than `DIFFICULT_ABOVE` of the object is hidden or outside the image."""
        return self.visible_area < (1 - DIFFICULT_ABOVE) * self.area


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image with its truth to the pixel.

    Attributes:
        image: `[H, W, 3]` uint8, RGB.
        objects: in painter's order; a later one hides an earlier one.
        owners: `[H, W]`; the index of the object that each pixel shows, −1 for the background.
    """

    image: UInt8[np.ndarray, "H W 3"]
    objects: tuple[DrawnObject, ...]
    owners: Int16[np.ndarray, "H W"]


def ensure_shapes(
    folder: Path,
    num_images: int = 1000,
    seed: int = 0,
    image_size: tuple[int, int] = (128, 128),
    splits: Sequence[int | float] = (0.6, 0.1, 0.3),
    *,
    max_objects: int = MAX_OBJECTS,
    diameters: tuple[float, float] = DIAMETERS,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Draw the set unless `folder` holds it already, complete and with these settings.

    The arguments are those of `draw_shapes`.

    Returns:
        Whether it was drawn now.

    Raises:
        DetectError: a setting is out of range, or the folder holds something else.
    """
    settings = _settings(num_images, seed, image_size, splits, max_objects, diameters)
    DRAWN_SET.check_folder(folder, settings)
    if all(_split_file(folder, name).is_file() for name in SPLIT_NAMES):
        return False
    draw_shapes(
        folder,
        num_images,
        seed,
        image_size,
        splits,
        max_objects=max_objects,
        diameters=diameters,
        progress=progress,
    )
    return True


@DATASETS.register("shapes")
def _read(
    request: DatasetRequest,
    *,
    num_images: int = 1200,
    image_size: int = 128,
    max_objects: int = MAX_OBJECTS,
    diameters: tuple[float, float] = DIAMETERS,
) -> DetectionDataset:
    """Read a split of the set, which is drawn first unless it is there."""
    folder = request.source.root
    request.say(f"Drawing the shapes set into {folder}")
    ensure_shapes(
        folder,
        num_images,
        seed=0,
        image_size=(image_size, image_size),
        max_objects=max_objects,
        diameters=diameters,
    )
    request.say(f"Checking {folder}, {request.source.split}")
    # a small set may lack some of its classes
    names = request.class_names or sorted(SHAPE_CLASSES)
    return read_request(replace(request, kind="voc", classes=names))


def draw_shapes(
    folder: Path,
    num_images: int = 1000,
    seed: int = 0,
    image_size: tuple[int, int] = (128, 128),
    splits: Sequence[int | float] = (0.6, 0.1, 0.3),
    *,
    max_objects: int = MAX_OBJECTS,
    diameters: tuple[float, float] = DIAMETERS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the set into `folder` as Annotations/, JPEGImages/ and ImageSets/Main/.

    The split files are written last: a set whose drawing was interrupted has none, and drawing it
    again with the same settings completes it.

    Args:
        folder: new, empty, or holding a set of the same settings, which is drawn again.
        num_images: at least 3, one for each split.
        seed: 0 or more.
        image_size: (height, width) in pixels, each at least 64.
        splits: shares of train, val and test in the images, or their numbers; trainval is the
            first two together.
        max_objects: of an image, 1 or more; the number is drawn from 1 to this, and a few images
            have none.
        diameters: the least and the greatest of the objects, as shares of the image's shorter
            side, in 0…1.
        progress: called with the images drawn so far and their total.

    Raises:
        DetectError: a setting is out of range, or the folder holds something else.
    """
    settings = _settings(num_images, seed, image_size, splits, max_objects, diameters)
    DRAWN_SET.check_folder(folder, settings)
    for name in SPLIT_NAMES:
        _split_file(folder, name).unlink(missing_ok=True)
    write_json(folder / DRAWN_SET.settings_file, settings)
    try:
        for name in ("Annotations", "JPEGImages"):
            (folder / name).mkdir(exist_ok=True)
        for index in range(num_images):
            image = render_image(index, seed, image_size, max_objects, diameters)
            _write_image(folder, _image_id(index), image)
            if progress is not None:
                progress(index + 1, num_images)
    except OSError as error:
        raise DetectError(f"{folder}: cannot be written: {error.strerror or error}") from error
    _write_splits(folder, settings["splits"])


def render_image(
    index: int,
    seed: int = 0,
    image_size: tuple[int, int] = (128, 128),
    max_objects: int = MAX_OBJECTS,
    diameters: tuple[float, float] = DIAMETERS,
) -> DrawnImage:
    """Draw image `index` of the set with `seed`; the arguments are those of `draw_shapes`."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, index]))
    canvas = background(generator, image_size)
    owners = np.full(image_size, -1, dtype=np.int16)
    objects: list[DrawnObject] = []
    num_objects = int(generator.integers(1, max_objects + 1))
    if generator.random() < EMPTY_SHARE:
        num_objects = 0
    for _ in range(num_objects):
        placed = _place(generator, owners, objects, diameters)
        # a crowded image may have no room left; it then has an object less
        if placed is not None:
            stencil, owners, objects = placed
            _paint(generator, canvas, stencil)
    return DrawnImage(photograph(generator, canvas), tuple(objects), owners)


# --- forms ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stencil:
    """A form at its place.

    Attributes:
        label: index into `SHAPE_CLASSES`.
        coverage: `[h, w]` uint8, 0…255; the whole form, antialiased.
        left: column of the image at which `coverage` begins; may be negative.
        top: row of the image at which `coverage` begins; may be negative.
    """

    label: int
    coverage: UInt8[np.ndarray, "h w"]
    left: int
    top: int

    @property
    def solid(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that count as the object's: those that it covers by half or more."""
        return self.coverage >= 128

    def windows(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part within an image of `size`, as slices of the image and of `coverage`."""
        rows = slice(max(self.top, 0), min(self.top + self.coverage.shape[0], size[0]))
        columns = slice(max(self.left, 0), min(self.left + self.coverage.shape[1], size[1]))
        own_rows = slice(rows.start - self.top, rows.stop - self.top)
        own_columns = slice(columns.start - self.left, columns.stop - self.left)
        return (rows, columns), (own_rows, own_columns)


def _contours(name: str, generator: np.random.Generator) -> Contours:
    """The outline of a form of class `name` within the circle of radius 1."""
    proportion = generator.random()
    if name == "circle":
        return [polygon(64)]
    if name == "ring":
        return [polygon(64), polygon(64) * (0.45 + 0.2 * proportion)]
    if name == "square":
        return [polygon(4)]
    if name == "triangle":
        return [polygon(3)]
    if name == "star":
        star = polygon(10)
        star[1::2] *= 0.38 + 0.12 * proportion
        return [star]
    arm = 0.25 + 0.13 * proportion
    quarter = np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return [np.concatenate([quarter @ turn.T for turn in turns]) / math.hypot(1, arm)]


def _stencil(
    generator: np.random.Generator,
    size: tuple[int, int],
    diameters: tuple[float, float],
    crowding: Crowding,
    others: Boxes,
) -> _Stencil:
    """Draw a form of random class, diameter, turn and place in an image of `size`."""
    label = int(generator.integers(len(SHAPE_CLASSES)))
    low, high = (max(share * min(size), MIN_DIAMETER) for share in diameters)
    radius = 0.5 * low * (high / low) ** generator.random()
    stretch = np.diag((1.0, 1 / generator.uniform(1.0, 1.15)))
    before, after = (rotation(angle) for angle in generator.uniform(0, 2 * np.pi, size=2))
    outline = [
        radius * points @ before @ stretch @ after
        for points in _contours(SHAPE_CLASSES[label], generator)
    ]
    reach = np.abs(outline[0]).max(axis=0) + 1
    center = _center(generator, size, reach, crowding, others)
    outline = [points + center for points in outline]
    left, top = (np.floor(outline[0].min(axis=0)).astype(int) - 1).tolist()
    right, bottom = (np.ceil(outline[0].max(axis=0)).astype(int) + 2).tolist()
    coverage = _coverage([points - (left, top) for points in outline], (bottom - top, right - left))
    return _Stencil(label, coverage, left, top)


def _coverage(outline: Contours, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The share of each pixel that lies within the outline, as 0…255.

    Drawn with 4×4 points a pixel and averaged: OpenCV's own antialiasing fattens a form by up to
    a pixel, and its box with it.
    """
    fine = np.zeros((4 * size[0], 4 * size[1]), dtype=np.uint8)
    # fixed-point corners with 4 binary digits; a whole number is the center of a point
    corners = [np.round((4 * points - 0.5) * 16).astype(np.int32) for points in outline]
    cv2.fillPoly(fine, corners, 255, shift=4)
    coverage: np.ndarray = cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA)
    return coverage


def _center(
    generator: np.random.Generator,
    size: tuple[int, int],
    reach: np.ndarray,
    crowding: Crowding,
    others: Boxes,
) -> np.ndarray:
    """The center (x, y) of a form that reaches `reach` = (horizontal, vertical) pixels from it."""
    extent = np.array((size[1], size[0]))
    if crowding == "another" and others:
        x1, y1, x2, y2 = others[int(generator.integers(len(others)))]
        middle, half = np.array((x1 + x2, y1 + y2)) / 2, np.array((x2 - x1, y2 - y1)) / 2
        near: np.ndarray = middle + half * generator.uniform(-1.0, 1.0, size=2)
        return near.clip(0, extent)
    margin = -0.4 * reach if crowding == "border" else reach
    center: np.ndarray = margin + generator.random(2) * np.maximum(extent - 2 * margin, 0)
    return center


# --- places --------------------------------------------------------------------------------------


def _place(
    generator: np.random.Generator,
    owners: np.ndarray,
    objects: list[DrawnObject],
    diameters: tuple[float, float],
) -> tuple[_Stencil, np.ndarray, list[DrawnObject]] | None:
    """Find a form and a place that leave every object of the image well enough visible.

    Most objects stand nearly free. The others are drawn to the border or to another object, and
    may be cut, or hide it, down to `MIN_VISIBLE_SHARE`.

    Returns:
        The form, and the owners and objects with it; None when no try succeeded.
    """
    crowding: Crowding = ("none", "border", "another")[generator.choice(3, p=(0.8, 0.12, 0.08))]
    most_hidden = 0.15 if crowding == "none" else 1 - MIN_VISIBLE_SHARE
    others = [drawn.box for drawn in objects]
    for _ in range(12):
        stencil = _stencil(generator, owners.shape, diameters, crowding, others)
        there, own = stencil.windows(owners.shape)
        new_owners = owners.copy()
        new_owners[there][stencil.solid[own]] = len(objects)
        area = int(stencil.solid.sum())
        truncated = int(stencil.solid[own].sum()) < area
        new = DrawnObject(stencil.label, area, area, (0, 0, *owners.shape[::-1]), truncated)
        measured = [
            _measured(drawn, new_owners, index) for index, drawn in enumerate([*objects, new])
        ]
        if all(
            after is not None
            and before.visible_area - after.visible_area <= most_hidden * after.area
            for before, after in zip([*objects, new], measured, strict=True)
        ):
            return stencil, new_owners, [drawn for drawn in measured if drawn is not None]
    return None


def _measured(drawn: DrawnObject, owners: np.ndarray, index: int) -> DrawnObject | None:
    """The object with its visible area and box as in `owners`; None if too little is visible."""
    left, top, right, bottom = drawn.box  # what hides an object can only shrink its box
    visible = (owners[top:bottom, left:right] == index).view(np.uint8)
    visible_area = cv2.countNonZero(visible)
    if visible_area < max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * drawn.area):
        return None
    x, y, width, height = cv2.boundingRect(visible)
    box = (left + x, top + y, left + x + width, top + y + height)
    if min(width, height) < MIN_BOX_SIDE:
        return None
    return DrawnObject(drawn.label, drawn.area, visible_area, box, drawn.truncated)


def _paint(generator: np.random.Generator, canvas: Canvas, stencil: _Stencil) -> None:
    """Fill the form with a texture of two tones that stand out from what lies below."""
    there, own = stencil.windows(canvas.shape[:2])
    size = stencil.coverage.shape
    weight = stencil.coverage[own].astype(np.float32)[:, :, None] / 255  # [h, w, 1]
    below = (canvas[there] * weight).sum(axis=(0, 1)) / weight.sum()  # [3]
    first = contrasting_color(generator, below)
    second = np.clip(first * generator.uniform(0.45, 1.5) + generator.normal(0, 0.08, 3), 0, 1)
    period = max(4.0, math.sqrt(size[0] * size[1]) * generator.uniform(0.12, 0.35))
    fill = mix(pattern_of(generator, (size[0], size[1]), period), first, second)
    if generator.random() < 0.4:
        outline = 0.25 * first if generator.random() < 0.6 else 1 - 0.3 * (1 - first)
        inner = cv2.erode(stencil.coverage, np.ones((3, 3), np.uint8), borderValue=0)
        fill = outline + (inner.astype(np.float32) / 255)[:, :, None] * (fill - outline)
    canvas[there] += weight * (fill[own] - canvas[there])


# --- files ---------------------------------------------------------------------------------------


def _settings(
    num_images: int,
    seed: int,
    image_size: tuple[int, int],
    splits: Sequence[int | float],
    max_objects: int,
    diameters: tuple[float, float],
) -> dict[str, Any]:
    settings = DRAWN_SET.settings(num_images, seed, image_size, splits)
    if max_objects < 1:
        raise DetectError(f"shapes: expected 1 object an image or more, found {max_objects}")
    if max_objects != MAX_OBJECTS:
        settings["max_objects"] = max_objects
    if len(diameters) != 2 or not 0 < diameters[0] <= diameters[1] <= 1:
        raise DetectError(
            "shapes: expected the least and the greatest diameter as shares of the image's "
            f"shorter side, above 0 and up to 1, found {tuple(diameters)}"
        )
    if tuple(diameters) != DIAMETERS:
        settings["diameters"] = list(diameters)
    return {**settings, "classes": list(SHAPE_CLASSES)}


def _image_id(index: int) -> str:
    return f"{index:06d}"


def _split_file(folder: Path, name: str) -> Path:
    return folder / "ImageSets" / "Main" / f"{name}.txt"


def _write_image(folder: Path, image_id: str, image: DrawnImage) -> None:
    write_jpeg(folder / "JPEGImages" / f"{image_id}.jpg", image.image)
    annotation = _annotation(image_id, image)
    (folder / "Annotations" / f"{image_id}.xml").write_bytes(annotation.encode())


def _write_splits(folder: Path, sizes: dict[str, int]) -> None:
    train_end = sizes["train"]
    val_end = train_end + sizes["val"]
    members = {
        "train": range(train_end),
        "val": range(train_end, val_end),
        "trainval": range(val_end),
        "test": range(val_end, val_end + sizes["test"]),
    }
    for name in SPLIT_NAMES:
        lines = [f"{_image_id(index)}\n" for index in members[name]]
        write_text(_split_file(folder, name), "".join(lines))


def _annotation(image_id: str, image: DrawnImage) -> str:
    """The VOC annotation; its boxes are 1-based and inclusive."""
    height, width = image.image.shape[:2]
    objects = "".join(
        f"\t<object>\n"
        f"\t\t<name>{SHAPE_CLASSES[drawn.label]}</name>\n"
        f"\t\t<pose>Unspecified</pose>\n"
        f"\t\t<truncated>{int(drawn.truncated)}</truncated>\n"
        f"\t\t<difficult>{int(drawn.difficult)}</difficult>\n"
        f"\t\t<bndbox>\n"
        f"\t\t\t<xmin>{drawn.box[0] + 1}</xmin>\n"
        f"\t\t\t<ymin>{drawn.box[1] + 1}</ymin>\n"
        f"\t\t\t<xmax>{drawn.box[2]}</xmax>\n"
        f"\t\t\t<ymax>{drawn.box[3]}</ymax>\n"
        f"\t\t</bndbox>\n"
        f"\t</object>\n"
        for drawn in image.objects
    )
    return (
        f"<annotation>\n"
        f"\t<folder>shapes</folder>\n"
        f"\t<filename>{image_id}.jpg</filename>\n"
        f"\t<source>\n"
        f"\t\t<database>shapes</database>\n"
        f"\t\t<annotation>drawn</annotation>\n"
        f"\t\t<image>drawn</image>\n"
        f"\t</source>\n"
        f"\t<size>\n"
        f"\t\t<width>{width}</width>\n"
        f"\t\t<height>{height}</height>\n"
        f"\t\t<depth>3</depth>\n"
        f"\t</size>\n"
        f"\t<segmented>0</segmented>\n"
        f"{objects}"
        f"</annotation>\n"
    )
