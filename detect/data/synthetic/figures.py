"""The built-in keypoint data set: drawn stick figures with joints, made on first use. Floor 2.

An image shows one figure, seen from the front, in a random pose, size and place before the
background of the shapes set. The limbs of one side are darker than those of the other; which side
that is, is random, so that left and right are known as of a person: the right side is to the left
of the image. The mirror image of an image could be one of the set, once its left and right
joints have changed places, and only then.

About a tenth of the figures are cut off by the border, and before three in ten lies something that
hides some of their joints.

Image k depends on the seed, on k and on the image size, and on nothing else: a larger set begins
with the images of a smaller one, and the same settings give the same bytes (as long as the
releases of numpy and OpenCV are the same, which own the random numbers and the JPEG encoder).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from detect.data.dataset import DetectionDataset
from detect.data.formats.keypoints import (
    PIXEL_CENTER,
    annotation_file,
    image_folder,
    read_keypoint_split,
)
from detect.data.readers import DATASETS, DatasetRequest
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
from detect.files import write_json

# The joints of the Leeds Sports Pose set in its order (Johnson and Everingham 2010), which DeepPose
# (Toshev and Szegedy 2014) is measured on. Right and left are the person's own.
FIGURE_JOINTS = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "neck",
    "head_top",
)
FIGURE_LIMBS = (
    ("right_ankle", "right_knee"),
    ("right_knee", "right_hip"),
    ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"),
    ("right_wrist", "right_elbow"),
    ("right_elbow", "right_shoulder"),
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("neck", "head_top"),
    ("neck", "right_shoulder"),
    ("neck", "left_shoulder"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_hip", "left_hip"),
)
FIGURE_SPLITS = ("train", "val", "test")

# The version counts up with every change of the drawing: an older set is not taken for a new one.
DRAWN_SET = DrawnSet("figures", "a set of figures", "figures.json", version=1)

# The height of a whole figure, as a share of the image's.
HEIGHTS = (0.4, 0.9)
# The widest that a whole figure may be, as a share of the image's width.
MAX_WIDTH = 0.95
# Of the figures that the border cuts off, and how much of their height or width it cuts.
CUT_SHARE = 0.1
CUTS = (0.12, 0.35)
HIDDEN_SHARE = 0.3

# Thickness of the limbs as a share of a standing figure's height, and at least so many pixels.
THICKNESSES = (0.035, 0.065)
MIN_THICKNESS = 2.0

# How far two colors that must be told apart differ, as a distance in RGB of 0…1.
MIN_CONTRAST = 0.3

_FINE = 4  # points a pixel and direction that shapes are drawn with before they are averaged

# Lengths as shares of a standing figure's height, after Drillis and Contini 1966, "Body segment
# parameters"; shoulders and hips are half their breadth.
_TORSO, _NECK, _HEAD = 0.29, 0.03, 0.16
_SHOULDERS, _HIPS = 0.115, 0.07
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.18, 0.16, 0.25, 0.25

Joints = Float[np.ndarray, "14 2"]
Coverage = UInt8[np.ndarray, "H W"]  # 0…255, the share of each pixel that a form covers


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """An image of one figure with its truth to the pixel.

    Attributes:
        image: `[H, W, 3]` uint8, RGB.
        joints: `[14, 3]` x, y in pixels, continuous, and COCO's visibility, in the order of
            `FIGURE_JOINTS`: 2 visible, 1 hidden, 0 outside the image, with x = y = 0.
        box: (x1, y1, x2, y2), half-open extent of `figure` in pixels.
        figure: `[H, W]`; the pixels of the figure within the image, hidden ones included.
        hidden: `[H, W]`; the pixels of what lies before it.
    """

    image: UInt8[np.ndarray, "H W 3"]
    joints: Float[np.ndarray, "14 3"]
    box: tuple[int, int, int, int]
    figure: Bool[np.ndarray, "H W"]
    hidden: Bool[np.ndarray, "H W"]


def ensure_figures(
    folder: Path,
    num_images: int = 1000,
    seed: int = 0,
    image_size: tuple[int, int] = (96, 96),
    splits: Sequence[int | float] = (0.6, 0.1, 0.3),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Draw the set unless `folder` holds it already, complete and with these settings.

    The arguments are those of `draw_figures`.

    Returns:
        Whether it was drawn now.

    Raises:
        DetectError: a setting is out of range, or the folder holds something else.
    """
    DRAWN_SET.check_folder(folder, DRAWN_SET.settings(num_images, seed, image_size, splits))
    if all(annotation_file(folder, split).is_file() for split in FIGURE_SPLITS):
        return False
    draw_figures(folder, num_images, seed, image_size, splits, progress=progress)
    return True


@DATASETS.register("figures")
def _read(
    request: DatasetRequest,
    *,
    num_images: int = 1200,
    image_size: int = 128,
    person_crops: float | None = None,
) -> DetectionDataset:
    """Read a split of the set, which is drawn first unless it is there."""
    folder = request.source.root
    request.say(f"Drawing the stick figures into {folder}")
    ensure_figures(folder, num_images, seed=0, image_size=(image_size, image_size))
    dataset: DetectionDataset = read_keypoint_split(request, person_crops=person_crops)
    return dataset


def draw_figures(
    folder: Path,
    num_images: int = 1000,
    seed: int = 0,
    image_size: tuple[int, int] = (96, 96),
    splits: Sequence[int | float] = (0.6, 0.1, 0.3),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the set into `folder` as images/ and annotations/person_keypoints_<split>.json.

    The annotations are written last: a set whose drawing was interrupted has none, and drawing it
    again with the same settings completes it.

    Args:
        folder: new, empty, or holding a set of the same settings, which is drawn again.
        num_images: at least 3, one for each split.
        seed: 0 or more.
        image_size: (height, width) in pixels, each at least 64.
        splits: shares of train, val and test in the images, or their numbers.
        progress: called with the images drawn so far and their total.

    Raises:
        DetectError: a setting is out of range, or the folder holds something else.
    """
    settings = DRAWN_SET.settings(num_images, seed, image_size, splits)
    DRAWN_SET.check_folder(folder, settings)
    for split in FIGURE_SPLITS:
        annotation_file(folder, split).unlink(missing_ok=True)
    write_json(folder / DRAWN_SET.settings_file, settings)
    entries = []
    try:
        image_folder(folder).mkdir(exist_ok=True)
        for index in range(num_images):
            figure = render_figure(index, seed, image_size)
            write_jpeg(image_folder(folder) / _file_name(index), figure.image)
            entries.append(_annotation(index, figure))
            if progress is not None:
                progress(index + 1, num_images)
    except OSError as error:
        raise DetectError(f"{folder}: cannot be written: {error.strerror or error}") from error
    _write_annotations(folder, entries, settings)


def render_figure(index: int, seed: int = 0, image_size: tuple[int, int] = (96, 96)) -> DrawnFigure:
    """Draw image `index` of the set with `seed`; `image_size` is (height, width) in pixels."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, index]))
    canvas = background(generator, image_size)
    points, thickness, height = _place(generator, image_size)
    parts = _parts(points, thickness, image_size)
    coverage = np.maximum.reduce(list(parts.values()))
    _paint_figure(generator, canvas, parts, coverage)
    hidden = np.zeros(image_size, np.uint8)
    if generator.random() < HIDDEN_SHARE:
        hidden = _occluder(generator, points, height, image_size)
        _paint_occluder(generator, canvas, hidden)
    figure = coverage >= 128
    x, y, width, height_seen = cv2.boundingRect(figure.view(np.uint8))
    return DrawnFigure(
        image=photograph(generator, canvas),
        joints=_with_visibility(points, hidden >= 128),
        box=(x, y, x + width, y + height_seen),
        figure=figure,
        hidden=hidden >= 128,
    )


# --- poses ---------------------------------------------------------------------------------------


def _pose(generator: np.random.Generator) -> Joints:
    """A random pose, in heights of the standing figure; x to the right, y down.

    Angles stay within what a person can do; limbs that point to the viewer are shorter.
    """
    lean = math.radians(generator.normal(0, 9))
    turn = generator.uniform(0.75, 1.0)  # of the body to one side, which makes it narrower
    up, side = _direction(math.pi + lean), _direction(math.pi / 2 + lean)
    chest = up * _TORSO
    neck = chest + up * _NECK
    head_top = neck + _direction(math.pi + lean + math.radians(generator.normal(0, 10))) * _HEAD
    points = {"neck": neck, "head_top": head_top}
    for name, sign in (("right", -1), ("left", 1)):
        shoulder, hip = chest + sign * turn * _SHOULDERS * side, sign * turn * _HIPS * side
        arm = generator.uniform(-15, 160)
        forearm = arm + generator.uniform(-100, 100)
        leg = generator.uniform(-8, 50)
        shin = leg + generator.uniform(-50, 12)
        elbow = shoulder + _limb(generator, _UPPER_ARM, arm, sign, lean)
        knee = hip + _limb(generator, _THIGH, leg, sign, lean)
        points |= {
            f"{name}_shoulder": shoulder,
            f"{name}_elbow": elbow,
            f"{name}_wrist": elbow + _limb(generator, _FOREARM, forearm, sign, lean),
            f"{name}_hip": hip,
            f"{name}_knee": knee,
            f"{name}_ankle": knee + _limb(generator, _SHIN, shin, sign, lean),
        }
    return np.stack([points[name] for name in FIGURE_JOINTS])


def _limb(
    generator: np.random.Generator, length: float, degrees: float, sign: int, lean: float
) -> Float[np.ndarray, "2"]:
    """A limb that points `degrees` from straight down outward, on the side of `sign`."""
    limb: np.ndarray = _direction(sign * math.radians(degrees) + lean)
    return limb * length * generator.uniform(0.75, 1.0)


def _direction(angle: float) -> Float[np.ndarray, "2"]:
    """The direction (x, y) at `angle` radians from straight down, turning to the right."""
    return np.array((math.sin(angle), math.cos(angle)))


def _place(generator: np.random.Generator, size: tuple[int, int]) -> tuple[Joints, float, float]:
    """A pose at its place: joints, thickness of the limbs and height of the figure, in pixels."""
    extent = np.array((size[1], size[0]))
    for _ in range(50):  # a wide pose may not fit into a narrow image
        points, thickness = _pose(generator), generator.uniform(*THICKNESSES)
        low, high = points.min(axis=0) - thickness / 2, points.max(axis=0) + thickness / 2
        scale = size[0] * generator.uniform(*HEIGHTS) / (high - low)[1]
        if scale * (high - low)[0] <= MAX_WIDTH * size[1]:
            break
        scale = MAX_WIDTH * size[1] / (high - low)[0]
    reach = scale * (high - low)
    corner = generator.random(2) * (extent - reach)
    if generator.random() < CUT_SHARE:
        axis, cut = int(generator.integers(2)), generator.uniform(*CUTS) * reach
        corner[axis] = -cut[axis] if generator.random() < 0.5 else (extent - reach + cut)[axis]
    placed: Joints = scale * (points - low) + corner
    return placed, max(scale * thickness, MIN_THICKNESS), float(reach[1])


def _with_visibility(points: Joints, hidden: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "14 3"]:
    """The joints with COCO's visibility; those outside the image are not labeled."""
    joints = np.zeros((len(points), 3))
    height, width = hidden.shape
    for joint, (x, y) in zip(joints, points, strict=True):
        if 0 <= x < width and 0 <= y < height:
            joint[:] = x, y, 1 if hidden[int(y), int(x)] else 2
    return joints


# --- painting ------------------------------------------------------------------------------------


def _parts(points: Joints, thickness: float, size: tuple[int, int]) -> dict[str, Coverage]:
    """The parts of a figure in painter's order, each as its coverage of the image's pixels."""
    place = dict(zip(FIGURE_JOINTS, points, strict=True))
    neck, top = place["neck"], place["head_top"]
    radius = 0.42 * float(np.linalg.norm(top - neck))
    middle = top + (neck - top) * (radius / max(float(np.linalg.norm(top - neck)), 1e-9))
    names = ("right_shoulder", "neck", "left_shoulder", "left_hip", "right_hip")
    parts = {"torso": _polygon_coverage(np.stack([place[name] for name in names]), thickness, size)}
    for name in ("right", "left"):
        leg = [place[f"{name}_{joint}"] for joint in ("hip", "knee", "ankle")]
        parts[f"{name} leg"] = _line_coverage(leg, 1.1 * thickness, size)
    head = middle + radius * polygon(32)
    parts["neck"] = _line_coverage([neck, middle], thickness, size)
    parts["head"] = _polygon_coverage(head, 0.0, size)
    for name in ("right", "left"):
        arm = [place[f"{name}_{joint}"] for joint in ("shoulder", "elbow", "wrist")]
        parts[f"{name} arm"] = _line_coverage(arm, thickness, size)
    return parts


def _line_coverage(
    points: Sequence[np.ndarray], thickness: float, size: tuple[int, int]
) -> Coverage:
    """The coverage of a line with round ends through `points`."""
    fine = np.zeros((_FINE * size[0], _FINE * size[1]), np.uint8)
    cv2.polylines(fine, [_fine_corners(points)], False, 255, round(_FINE * thickness), shift=4)
    return _averaged(fine, size)


def _polygon_coverage(points: np.ndarray, thickness: float, size: tuple[int, int]) -> Coverage:
    """The coverage of a filled polygon with round corners, `thickness` / 2 larger on each side."""
    fine = np.zeros((_FINE * size[0], _FINE * size[1]), np.uint8)
    corners = _fine_corners(points)
    cv2.fillPoly(fine, [corners], 255, shift=4)
    if thickness > 0:
        cv2.polylines(fine, [corners], True, 255, round(_FINE * thickness), shift=4)
    return _averaged(fine, size)


def _fine_corners(points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    # fixed-point corners with 4 binary digits; a whole number is the center of a point
    return np.round((_FINE * np.asarray(points) - 0.5) * 16).astype(np.int32)


def _averaged(fine: np.ndarray, size: tuple[int, int]) -> Coverage:
    coverage: Coverage = cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA)
    return coverage


def _paint_figure(
    generator: np.random.Generator,
    canvas: Canvas,
    parts: dict[str, Coverage],
    coverage: Coverage,
) -> None:
    """Paint the parts: one color for each side, and one for torso, neck and head."""
    weight = coverage.astype(np.float32)[:, :, None] / 255  # [H, W, 1]
    below = (canvas * weight).sum(axis=(0, 1)) / weight.sum()  # [3]
    light, dark = _side_colors(generator, below)
    right, left = (light, dark) if generator.random() < 0.5 else (dark, light)
    colors = {"right": right, "left": left}
    for name, part in parts.items():
        color = colors.get(name.split()[0], (right + left) / 2)
        _blend(canvas, part, color)


def _side_colors(
    generator: np.random.Generator, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two shades of one color that differ clearly from each other and from what lies below."""
    for _ in range(32):
        light = contrasting_color(generator, below)
        dark = light * generator.uniform(0.35, 0.6)
        middle = (light + dark) / 2
        pairs = ((light, dark), (dark, below), (middle, below))
        if all(float(np.linalg.norm(one - other)) > MIN_CONTRAST for one, other in pairs):
            break
    return light, dark


def _occluder(
    generator: np.random.Generator, points: Joints, height: float, size: tuple[int, int]
) -> Coverage:
    """A turned ellipse or rectangle over one joint of the image, or several."""
    extent = np.array((size[1], size[0]))
    inside = points[((points >= 0) & (points < extent)).all(axis=1)]
    radii = height * generator.uniform(0.08, 0.2) * np.array((1.0, generator.uniform(0.6, 1.0)))
    radii = np.maximum(radii, MIN_THICKNESS)
    middle = inside[generator.integers(len(inside))] + generator.uniform(-0.4, 0.4, 2) * radii.min()
    corners = polygon(4 if generator.random() < 0.5 else 32)
    outline = corners * radii @ rotation(generator.uniform(0, 2 * np.pi)) + middle
    return _polygon_coverage(outline, 0.0, size)


def _paint_occluder(generator: np.random.Generator, canvas: Canvas, coverage: Coverage) -> None:
    weight = coverage.astype(np.float32)[:, :, None] / 255  # [H, W, 1]
    below = (canvas * weight).sum(axis=(0, 1)) / weight.sum()  # [3]
    first = contrasting_color(generator, below)
    second = np.clip(first * generator.uniform(0.6, 1.4), 0, 1)
    size = (canvas.shape[0], canvas.shape[1])
    period = max(4.0, min(size) * generator.uniform(0.05, 0.15))
    _blend(canvas, coverage, mix(pattern_of(generator, size, period), first, second))


def _blend(canvas: Canvas, coverage: Coverage, color: np.ndarray) -> None:
    """Paint `color`, `[3]` or `[H, W, 3]`, as far as a form covers each pixel."""
    weight = coverage.astype(np.float32)[:, :, None] / 255
    canvas += weight * (color.astype(np.float32) - canvas)


# --- files ---------------------------------------------------------------------------------------


def _file_name(index: int) -> str:
    return f"{index:06d}.jpg"


def _annotation(index: int, figure: DrawnFigure) -> dict[str, Any]:
    """The COCO annotation; its joints are pixel indices, its box is x, y, width and height."""
    x1, y1, x2, y2 = figure.box
    joints = figure.joints.copy()
    labeled = joints[:, 2] > 0
    joints[labeled, :2] -= PIXEL_CENTER
    keypoints = [
        number
        for x, y, visibility in joints.round(2).tolist()
        for number in (x, y, int(visibility))
    ]
    return {
        "id": index + 1,  # pycocotools takes an id of 0 for none
        "image_id": index + 1,
        "category_id": 1,
        "iscrowd": 0,
        "area": int(figure.figure.sum()),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "num_keypoints": int(labeled.sum()),
        "keypoints": keypoints,
    }


def _write_annotations(
    folder: Path, entries: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> None:
    numbers = {name: number for number, name in enumerate(FIGURE_JOINTS, start=1)}
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(FIGURE_JOINTS),
        "skeleton": [[numbers[first], numbers[second]] for first, second in FIGURE_LIMBS],
    }
    height, width = settings["image_size"]
    start = 0
    for split in FIGURE_SPLITS:
        chosen = range(start, start + settings["splits"][split])
        start = chosen.stop
        images = [
            {"id": index + 1, "file_name": _file_name(index), "height": height, "width": width}
            for index in chosen
        ]
        content = {
            "info": {"description": "stick figures drawn by detect"},
            "images": images,
            "annotations": [entries[index] for index in chosen],
            "categories": [category],
        }
        write_json(annotation_file(folder, split), content)
