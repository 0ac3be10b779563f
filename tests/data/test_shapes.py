import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.data.synthetic import shapes
from detect.data.synthetic.shapes import SHAPE_CLASSES, draw_shapes, ensure_shapes, render_image
from detect.errors import DetectError


@pytest.fixture(scope="module")
def images():
    return [render_image(index, seed=3) for index in range(160)]


@pytest.fixture(scope="module")
def drawn_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, num_images=20, seed=5, image_size=(96, 128))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def image_ids(folder: Path, split: str) -> list[str]:
    return (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


# --- sameness ------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(drawn_folder, tmp_path):
    draw_shapes(tmp_path / "again", num_images=20, seed=5, image_size=(96, 128))
    assert contents(tmp_path / "again") == contents(drawn_folder)


def test_other_seed_gives_other_images(drawn_folder, tmp_path):
    draw_shapes(tmp_path / "other", num_images=20, seed=6, image_size=(96, 128))
    ours, others = contents(drawn_folder), contents(tmp_path / "other")
    assert ours.keys() == others.keys()
    images = [name for name in ours if name.endswith(".jpg")]
    assert len(images) == 20
    assert all(ours[name] != others[name] for name in images)


def test_a_larger_set_begins_with_the_images_of_a_smaller_one(drawn_folder, tmp_path):
    draw_shapes(tmp_path / "small", num_images=7, seed=5, image_size=(96, 128))
    large, small = contents(drawn_folder), contents(tmp_path / "small")
    names = [name for name in small if name.startswith(("JPEGImages", "Annotations"))]
    assert len(names) == 14
    assert all(small[name] == large[name] for name in names)


def test_drawing_leaves_the_global_generators_alone():
    np.random.seed(0)  # noqa: NPY002 (it is the global generator that is watched)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    render_image(0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# --- truth ---------------------------------------------------------------------------------------


def test_boxes_are_the_extent_of_the_visible_pixels(images):
    for photo in images:
        shown = set(np.unique(photo.owners)) - {-1}
        assert shown == set(range(len(photo.objects))), "an object is visible and not annotated"
        for index, drawn in enumerate(photo.objects):
            rows, columns = np.nonzero(photo.owners == index)
            extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert drawn.box == extent
            assert drawn.visible_area == len(rows)


def test_painted_pixels_are_where_the_truth_says():
    # Objects are painted opaque: with the same random numbers but objects of another color, only
    # their pixels and the antialiased ones around them change.
    original = render_image(6, seed=3)
    assert original.objects
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "photograph", lambda _, canvas: (canvas * 255).astype(np.uint8))
        plain = render_image(6, seed=3)
        patch.setattr(shapes, "_paint", black_out(shapes._paint))
        blacked = render_image(6, seed=3)
    changed = (plain.image != blacked.image).any(axis=2)
    objects = plain.owners >= 0
    interior = cv2.erode(objects.astype(np.uint8), np.ones((5, 5))) > 0
    surroundings = cv2.dilate(objects.astype(np.uint8), np.ones((5, 5))) == 0
    assert interior.sum() > 100
    assert (blacked.image[interior] == 0).all()
    assert not changed[surroundings].any()


def black_out(paint):
    def paint_black(generator, canvas, stencil):
        paint(generator, canvas.copy(), stencil)  # takes as many random numbers
        there, own = stencil.windows(canvas.shape[:2])
        canvas[there] *= 1 - stencil.coverage[own][:, :, None] / 255

    return paint_black


def test_every_object_is_visible_enough(images):
    for photo in images:
        for drawn in photo.objects:
            x1, y1, x2, y2 = drawn.box
            assert 0 <= x1 < x2 <= photo.image.shape[1]
            assert 0 <= y1 < y2 <= photo.image.shape[0]
            assert min(x2 - x1, y2 - y1) >= shapes.MIN_BOX_SIDE
            assert drawn.visible_area >= max(
                shapes.MIN_VISIBLE_PIXELS, shapes.MIN_VISIBLE_SHARE * drawn.area
            )


def test_difficult_is_what_is_hidden_by_more_than_the_limit(images):
    objects = [drawn for photo in images for drawn in photo.objects]
    for drawn in objects:
        hidden_share = 1 - drawn.visible_area / drawn.area
        assert drawn.difficult == (hidden_share > 0.65)
    share = np.mean([drawn.difficult for drawn in objects])
    assert 0.01 < share < 0.08


def test_difficult_limit_to_the_pixel():
    drawn = shapes.DrawnObject(0, area=100, visible_area=35, box=(0, 0, 9, 9), truncated=False)
    assert not drawn.difficult
    assert dataclasses.replace(drawn, visible_area=34).difficult


def test_truncated_objects_touch_the_border_and_others_lack_nothing(images):
    num_truncated = 0
    for photo in images:
        height, width = photo.image.shape[:2]
        for index, drawn in enumerate(photo.objects):
            x1, y1, x2, y2 = drawn.box
            touches = x1 == 0 or y1 == 0 or x2 == width or y2 == height
            hidden = drawn.visible_area < drawn.area
            is_last = index == len(photo.objects) - 1  # nothing hides the last one
            if is_last:
                assert drawn.truncated == hidden
                assert touches or not drawn.truncated
            num_truncated += drawn.truncated
    assert num_truncated > 20


def test_variety(images):
    counts = Counter(drawn.label for photo in images for drawn in photo.objects)
    assert sorted(counts) == list(range(len(SHAPE_CLASSES)))
    assert min(counts.values()) > 0.6 * max(counts.values())
    num_empty = sum(not photo.objects for photo in images)
    assert 1 <= num_empty <= 0.07 * len(images)
    assert max(len(photo.objects) for photo in images) == shapes.MAX_OBJECTS
    sides = [
        max(drawn.box[2] - drawn.box[0], drawn.box[3] - drawn.box[1])
        for photo in images
        for drawn in photo.objects
        if drawn.visible_area == drawn.area
    ]
    assert min(sides) < 20
    assert max(sides) > 60


def test_color_does_not_tell_the_class(images):
    colors: dict[int, list[np.ndarray]] = {label: [] for label in range(len(SHAPE_CLASSES))}
    for photo in images:
        for index, drawn in enumerate(photo.objects):
            colors[drawn.label].append(photo.image[photo.owners == index].mean(axis=0))
    means = np.array([np.mean(of_class, axis=0) for of_class in colors.values()])  # [C, 3]
    # about 100 objects a class with a deviation of about 55: means of one distribution lie within
    # 4 · 55 / √100 ≈ 22 of each other's mean
    assert np.abs(means - means.mean(axis=0)).max() < 22
    assert min(np.std(of_class, axis=0).min() for of_class in colors.values()) > 30


@pytest.mark.parametrize("name", SHAPE_CLASSES)
def test_forms_fill_their_share_of_the_circle(name):
    # the share of the circumscribed circle that tells the forms apart
    bounds = {
        "circle": (0.98, 1.0),
        "square": (0.63, 0.65),
        "triangle": (0.40, 0.42),
        "star": (0.3, 0.5),
        "cross": (0.45, 0.7),
        "ring": (0.55, 0.81),
    }
    for seed in range(10):
        outer, *holes = shapes._contours(name, np.random.default_rng(seed))
        np.testing.assert_allclose(np.hypot(*outer.T).max(), 1.0)
        share = (polygon_area(outer) - sum(map(polygon_area, holes))) / np.pi
        assert bounds[name][0] <= share <= bounds[name][1]


def test_forms_are_drawn_whole_and_where_they_were_placed(monkeypatch):
    centers = []
    place = shapes._center

    def place_and_keep(*arguments):
        centers.append(place(*arguments))
        return centers[-1]

    monkeypatch.setattr(shapes, "_center", place_and_keep)
    generator = np.random.default_rng(0)
    for _ in range(100):
        stencil = shapes._stencil(generator, (128, 128), shapes.DIAMETERS, "border", [])
        coverage = stencil.coverage.astype(float) / 255
        margins = (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1])
        assert not np.concatenate(margins).any(), "the form is cut by its own canvas"
        rows, columns = (np.arange(length) + 0.5 for length in coverage.shape)  # pixel centers
        x = stencil.left + (coverage.sum(axis=0) * columns).sum() / coverage.sum()
        y = stencil.top + (coverage.sum(axis=1) * rows).sum() / coverage.sum()
        # there are 4 points a pixel, and OpenCV fills those on the outline as well
        np.testing.assert_allclose((x, y), centers[-1], atol=0.15)


def polygon_area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@pytest.mark.parametrize("image_size", [(64, 64), (64, 200), (200, 90)])
def test_image_sizes(image_size):
    for index in range(12):
        photo = render_image(index, image_size=image_size)
        assert photo.image.shape == (*image_size, 3)
        assert photo.image.dtype == np.uint8


# --- files ---------------------------------------------------------------------------------------


def test_splits_are_disjoint_and_complete(drawn_folder):
    train, val, test = (image_ids(drawn_folder, name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (12, 2, 6)
    assert train + val == image_ids(drawn_folder, "trainval")
    everything = {path.stem for path in (drawn_folder / "JPEGImages").iterdir()}
    assert len(everything) == 20
    assert sorted(train + val + test) == sorted(everything)
    assert {path.stem for path in (drawn_folder / "Annotations").iterdir()} == everything


@pytest.mark.parametrize(
    ("num_images", "splits", "sizes"),
    [
        (1000, (0.6, 0.1, 0.3), (600, 100, 300)),
        (1200, (0.6, 0.1, 0.3), (720, 120, 360)),
        (1200, (800, 150, 250), (800, 150, 250)),
        (7, (1, 1, 1), (2, 3, 2)),
        (3, (0.98, 0.01, 0.01), (1, 1, 1)),
        (3, (0.01, 0.01, 0.98), (1, 1, 1)),
    ],
)
def test_split_sizes(num_images, splits, sizes):
    assert tuple(shapes.DRAWN_SET.split_sizes(num_images, splits).values()) == sizes


def test_annotations_say_what_was_drawn(drawn_folder):
    num_objects = 0
    for index, image_id in enumerate(
        sorted(p.stem for p in (drawn_folder / "JPEGImages").iterdir())
    ):
        root = ElementTree.parse(drawn_folder / "Annotations" / f"{image_id}.xml").getroot()
        image = cv2.imread(str(drawn_folder / "JPEGImages" / f"{image_id}.jpg"))
        photo = render_image(index, seed=5, image_size=(96, 128))
        assert root.tag == "annotation"
        assert root.findtext("filename") == f"{image_id}.jpg"
        assert [root.findtext(f"size/{side}") for side in ("height", "width", "depth")] == [
            str(side) for side in image.shape
        ]
        # JPEG changes a noisy image by a few levels, and red and blue are not exchanged
        difference = image[:, :, ::-1].astype(int) - photo.image
        assert np.abs(difference).mean() < 8
        for element, drawn in zip(root.findall("object"), photo.objects, strict=True):
            assert element.findtext("name") == SHAPE_CLASSES[drawn.label]
            assert element.findtext("difficult") == str(int(drawn.difficult))
            assert element.findtext("truncated") == str(int(drawn.truncated))
            corners = [
                int(element.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")
            ]
            assert (corners[0] - 1, corners[1] - 1, corners[2], corners[3]) == drawn.box
            num_objects += 1
    assert num_objects > 20


def test_progress_counts_up(tmp_path):
    calls = []
    draw_shapes(tmp_path, 4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_interrupted_drawing_does_not_look_complete_and_is_completed(tmp_path):
    whole = tmp_path / "whole"
    torn = tmp_path / "torn"
    draw_shapes(whole, 6)

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    for _ in range(2):  # the second time over a complete set
        with pytest.raises(KeyboardInterrupt):
            draw_shapes(torn, 6, progress=interrupt)
        assert not list(torn.rglob("*.txt"))
        assert ensure_shapes(torn, 6)
        assert contents(torn) == contents(whole)


def test_ensure_draws_once(tmp_path):
    folder = tmp_path / "data" / "shapes"
    assert ensure_shapes(folder, 5, seed=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not ensure_shapes(folder, 5, seed=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"seed": 2}, "seed 1 (wanted: 2)"),
        ({"num_images": 6}, "num_images 5 (wanted: 6)"),
        ({"image_size": (64, 128)}, "image_size [128, 128] (wanted: [64, 128])"),
        ({"splits": (3, 1, 1)}, "'test': 2} (wanted: {'train': 3, 'val': 1, 'test': 1})"),
    ],
)
def test_other_settings_are_refused(tmp_path, changed, found):
    settings = {"num_images": 5, "seed": 1, "splits": (2, 1, 2)}
    draw_shapes(tmp_path, **settings)
    before = contents(tmp_path)
    for draw in (draw_shapes, ensure_shapes):
        with pytest.raises(DetectError) as caught:
            draw(tmp_path, **(settings | changed))
        assert str(tmp_path) in str(caught.value)
        assert found in str(caught.value)
        assert "another folder" in str(caught.value)
    assert contents(tmp_path) == before


def test_an_older_drawing_is_not_taken_for_new(tmp_path):
    draw_shapes(tmp_path, 3)
    settings_file = tmp_path / "shapes.json"
    settings = json.loads(settings_file.read_text())
    settings_file.write_text(json.dumps(settings | {"version": 0}))
    with pytest.raises(DetectError, match=r"version 0 \(wanted: 2\)"):
        ensure_shapes(tmp_path, 3)


def test_the_version_names_the_drawing():
    # a change of what is drawn wants another version, or a set that lies there is mixed up with it
    labels = [[drawn.label for drawn in render_image(index).objects] for index in range(8)]
    drawings = {
        2: [
            [4, 4, 3, 0, 1],
            [1],
            [],
            [2, 3, 3],
            [4],
            [2, 1, 5, 1, 3],
            [3, 2, 3, 3],
            [3, 4, 0, 3, 5],
        ]
    }
    assert drawings[shapes.DRAWN_SET.version] == labels


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for draw in (draw_shapes, ensure_shapes):
        with pytest.raises(DetectError, match="found other files"):
            draw(tmp_path, 3)
    assert contents(tmp_path) == {"thesis.txt": b"precious"}
    with pytest.raises(DetectError, match="found a file"):
        draw_shapes(tmp_path / "thesis.txt", 3)
    (tmp_path / "shapes.json").write_text("[]")
    with pytest.raises(DetectError, match="expected the settings of a shapes set"):
        draw_shapes(tmp_path, 3)


def test_the_diameters_can_be_chosen():
    sides = []
    for index in range(60):
        photo = render_image(index, max_objects=1, diameters=(0.4, 0.8))
        sides += [
            max(drawn.box[2] - drawn.box[0], drawn.box[3] - drawn.box[1])
            for drawn in photo.objects
            if not drawn.truncated
        ]
    # a square or a cross that stands upright is narrower than the circle around it
    assert 0.4 * 128 * 0.65 < min(sides) < 0.5 * 128
    assert 0.65 * 128 < max(sides) <= 0.8 * 128 + 2


def test_chosen_diameters_are_another_set(tmp_path):
    draw_shapes(tmp_path, 3, diameters=(0.4, 0.8))
    assert not ensure_shapes(tmp_path, 3, diameters=(0.4, 0.8))
    with pytest.raises(DetectError, match="other settings"):
        ensure_shapes(tmp_path, 3, diameters=(0.4, 0.7))
    with pytest.raises(DetectError, match=r"diameters \[0.4, 0.8\] \(wanted: 'as usual'\)"):
        ensure_shapes(tmp_path, 3)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"num_images": 2}, "found 2"),
        ({"seed": -1}, "found -1"),
        ({"image_size": (32, 128)}, r"found \(32, 128\)"),
        ({"max_objects": 0}, "found 0"),
        ({"diameters": (0.0, 0.5)}, r"found \(0.0, 0.5\)"),
        ({"diameters": (0.5, 0.4)}, r"found \(0.5, 0.4\)"),
        ({"diameters": (0.5, 1.1)}, r"found \(0.5, 1.1\)"),
        ({"splits": (0.5, 0.5)}, r"found \[0.5, 0.5\]"),
        ({"splits": (0.5, 0.5, 0.0)}, r"found \[0.5, 0.5, 0.0\]"),
        ({"splits": (0.5, 0.5, float("nan"))}, "nan"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, found):
    folder = tmp_path / "shapes"
    for draw in (draw_shapes, ensure_shapes):
        with pytest.raises(DetectError, match=found):
            draw(folder, **({"num_images": 10} | settings))
    assert not folder.exists()
