import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.testing import assert_close

from detect.data.formats.keypoints import read_coco_keypoints
from detect.data.synthetic import figures
from detect.data.synthetic.figures import (
    FIGURE_JOINTS,
    FIGURE_LIMBS,
    FIGURE_SPLITS,
    annotation_file,
    draw_figures,
    ensure_figures,
    image_folder,
    render_figure,
)
from detect.errors import DetectError

NUMBERS = {name: number for number, name in enumerate(FIGURE_JOINTS)}


@pytest.fixture(scope="module")
def images():
    return [render_figure(index, seed=3) for index in range(200)]


@pytest.fixture(scope="module")
def drawn_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    draw_figures(folder, num_images=20, seed=5, image_size=(96, 128))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- sameness ------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(drawn_folder, tmp_path):
    draw_figures(tmp_path / "again", num_images=20, seed=5, image_size=(96, 128))
    assert contents(tmp_path / "again") == contents(drawn_folder)


def test_other_seed_gives_other_images(drawn_folder, tmp_path):
    draw_figures(tmp_path / "other", num_images=20, seed=6, image_size=(96, 128))
    ours, others = contents(drawn_folder), contents(tmp_path / "other")
    assert ours.keys() == others.keys()
    assert len(ours) == 20 + 3 + 1
    assert all(ours[name] != others[name] for name in ours)


def test_a_larger_set_begins_with_the_images_of_a_smaller_one(drawn_folder, tmp_path):
    draw_figures(tmp_path / "small", num_images=7, seed=5, image_size=(96, 128))
    large, small = contents(drawn_folder), contents(tmp_path / "small")
    names = [name for name in small if name.endswith(".jpg")]
    assert len(names) == 7
    assert all(large[name] == small[name] for name in names)


# --- truth ---------------------------------------------------------------------------------------


def test_boxes_are_the_extent_of_the_figure(images):
    for drawn in images:
        rows, columns = np.nonzero(drawn.figure)
        extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert drawn.box == extent


def test_joints_lie_on_the_figure_and_visibility_is_what_is_seen(images):
    counts = np.zeros(3, int)
    for drawn in images:
        # the top of the head is its rim, within a pixel of those that are covered by half
        surroundings = cv2.dilate(drawn.figure.astype(np.uint8), np.ones((3, 3))) > 0
        for name, (x, y, visibility) in zip(FIGURE_JOINTS, drawn.joints, strict=True):
            counts[int(visibility)] += 1
            if visibility == 0:
                assert (x, y) == (0, 0)
                continue
            painted = surroundings if name == "head_top" else drawn.figure
            assert painted[int(y), int(x)], name
            assert drawn.hidden[int(y), int(x)] == (visibility == 1)
    assert counts[0] > 20
    assert counts[1] > 60
    assert counts[2] > 0.8 * counts.sum()


def test_limbs_lie_on_the_figure(images):
    for drawn in images:
        for first, second in FIGURE_LIMBS:
            (x1, y1, v1), (x2, y2, v2) = (drawn.joints[NUMBERS[name]] for name in (first, second))
            if v1 and v2:
                middle = int((y1 + y2) / 2), int((x1 + x2) / 2)
                assert drawn.figure[middle], (first, second)


def test_the_head_ends_at_head_top(images):
    for drawn in images:
        top, neck = (drawn.joints[NUMBERS[name], :2] for name in ("head_top", "neck"))
        beyond = top + 2.5 * (top - neck) / max(np.linalg.norm(top - neck), 1e-9)
        arms = [
            NUMBERS[f"{side}_{name}"] for side in ("right", "left") for name in ("elbow", "wrist")
        ]
        if (drawn.joints[:, 2] == 0).any() or min(beyond) < 0 or max(beyond) >= 96:
            continue
        if np.linalg.norm(drawn.joints[arms, :2] - beyond, axis=1).min() > 25:
            assert not drawn.figure[int(beyond[1]), int(beyond[0])]


def plain_images(monkeypatch, count):
    """Images without blur and noise, with the colors of right, left and middle parts."""
    monkeypatch.setattr(figures, "photograph", lambda _, c: np.rint(c * 255).astype(np.uint8))
    monkeypatch.setattr(figures, "HIDDEN_SHARE", 0.0)
    sides = []
    choose = figures._side_colors

    def choose_and_keep(*arguments):
        sides.append(choose(*arguments))
        return sides[-1]

    monkeypatch.setattr(figures, "_side_colors", choose_and_keep)
    return [(render_figure(index, seed=4), sides[-1]) for index in range(count)]


def test_the_two_sides_have_two_shades(monkeypatch):
    """Both shades occur on either side, and a limb has that of its side from end to end."""
    num_right_light = 0
    images = plain_images(monkeypatch, 60)
    for drawn, (light, dark) in images:
        assert np.linalg.norm(light - dark) > 0.15
        nearest = []
        for side in ("right", "left"):
            # nothing is painted over the wrists, but the other arm
            for name in ("wrist", "elbow"):
                x, y, visibility = drawn.joints[NUMBERS[f"{side}_{name}"]]
                if visibility:
                    color = drawn.image[int(y), int(x)] / 255
                    is_light = np.linalg.norm(color - light) < np.linalg.norm(color - dark)
                    nearest.append((side == "right") == is_light)
        num_right_light += sum(nearest) > len(nearest) / 2
        # all joints of one image agree, unless the arms cross
        assert max(sum(nearest), len(nearest) - sum(nearest)) >= len(nearest) - 1
    assert 15 < num_right_light < 45


def test_the_right_side_is_to_the_left_of_the_image(images):
    for drawn in images:
        for name in ("shoulder", "hip"):
            right, left = (drawn.joints[NUMBERS[f"{side}_{name}"]] for side in ("right", "left"))
            if right[2] and left[2]:
                assert right[0] < left[0]


def test_painted_pixels_are_where_the_truth_says(monkeypatch):
    """The figure is seen wherever it is and nothing lies before it, and nowhere else."""
    red = np.array([1.0, 0.0, 0.0])
    monkeypatch.setattr(figures, "photograph", lambda _, c: np.rint(c * 200).astype(np.uint8))
    monkeypatch.setattr(figures, "_side_colors", lambda *_: (red, red / 2))
    monkeypatch.setattr(figures, "contrasting_color", lambda *_: np.array([0.1, 0.9, 0.1]))
    monkeypatch.setattr(figures, "HIDDEN_SHARE", 1.0)
    for index in range(20):
        drawn = render_figure(index, seed=2)
        figure, hidden = (mask.astype(np.uint8) for mask in (drawn.figure, drawn.hidden))
        kernel = np.ones((3, 3), np.uint8)
        seen = (cv2.erode(figure, kernel) > 0) & (cv2.dilate(hidden, kernel) == 0)
        covered = cv2.erode(hidden, kernel) > 0
        assert seen.sum() > 20
        assert covered.any()
        # light, dark, and torso and head between the two; where parts meet, the background
        # shines through a little
        assert (drawn.image[seen][:, 0] >= 100).all()
        assert (drawn.image[seen][:, 1:] <= 60).all()
        assert (drawn.image[covered][:, 1] > 100).all()
        elsewhere = (cv2.dilate(figure, kernel) == 0) & ~drawn.hidden
        is_red = (drawn.image[..., 0] >= 100) & (drawn.image[..., 1:] == 0).all(axis=2)
        assert not is_red[elsewhere].any()


def test_variety(images):
    cut = np.mean([(drawn.joints[:, 2] == 0).any() for drawn in images])
    hidden = np.mean([drawn.hidden.any() for drawn in images])
    with_hidden_joints = np.mean([(drawn.joints[:, 2] == 1).any() for drawn in images])
    assert 0.03 < cut < 0.17
    assert 0.2 < hidden < 0.4
    assert with_hidden_joints > 0.9 * hidden
    whole = [drawn for drawn in images if (drawn.joints[:, 2] > 0).all()]
    heights = np.array([drawn.box[3] - drawn.box[1] for drawn in whole]) / 96
    assert 0.36 < heights.min() < 0.5
    assert 0.8 < heights.max() < 0.94
    assert min((drawn.joints[:, 2] > 0).sum() for drawn in images) >= 5
    wrists = np.array([drawn.joints[NUMBERS["left_wrist"]] for drawn in whole])
    shoulders = np.array([drawn.joints[NUMBERS["left_shoulder"]] for drawn in whole])
    raised = (wrists[:, 1] < shoulders[:, 1]).mean()
    assert 0.2 < raised < 0.8


def test_whole_figures_are_inside_and_keep_their_height(monkeypatch):
    monkeypatch.setattr(figures, "CUT_SHARE", 0.0)
    for size in ((96, 96), (64, 200), (128, 64)):
        for index in range(30):
            drawn = render_figure(index, image_size=size)
            assert drawn.image.shape == (*size, 3)
            assert (drawn.joints[:, 2] > 0).all()
            x1, _, x2, _ = drawn.box
            assert x2 - x1 <= 0.95 * size[1] + 2


def test_a_figure_that_can_never_fit_becomes_smaller():
    drawn = render_figure(0, image_size=(1000, 64))
    assert drawn.box[3] - drawn.box[1] < 400
    assert drawn.box[2] - drawn.box[0] <= 64


def test_cut_figures_touch_the_border(monkeypatch):
    monkeypatch.setattr(figures, "CUT_SHARE", 1.0)
    sides = set()
    for index in range(60):
        x1, y1, x2, y2 = render_figure(index).box
        touched = [side for side, hit in enumerate((x1 == 0, y1 == 0, x2 == 96, y2 == 96)) if hit]
        assert touched
        sides.update(touched)
    assert sides == {0, 1, 2, 3}


# --- files ---------------------------------------------------------------------------------------


def test_the_reader_finds_what_was_drawn(drawn_folder):
    index = 0
    ids = []
    for split, count in zip(FIGURE_SPLITS, (12, 2, 6), strict=True):
        dataset = read_coco_keypoints(
            annotation_file(drawn_folder, split), image_folder(drawn_folder)
        )
        assert len(dataset) == count
        assert dataset.class_names == ("person",)
        assert dataset.faults == ()
        assert dataset.joint_names == FIGURE_JOINTS
        assert [
            (FIGURE_JOINTS[first], FIGURE_JOINTS[second]) for first, second in dataset.limbs
        ] == list(FIGURE_LIMBS)
        swaps = [(FIGURE_JOINTS[left], FIGURE_JOINTS[right]) for left, right in dataset.joint_swaps]
        assert len(swaps) == 6
        assert all(right == left.replace("left", "right") for left, right in swaps)
        ids += dataset.image_ids
        for sample in dataset:
            drawn = render_figure(index, seed=5, image_size=(96, 128))
            assert sample.truth.boxes.tolist() == [list(drawn.box)]
            assert not sample.truth.difficult.any()
            # written to a hundredth of a pixel
            found = sample.truth.joints[0].double().numpy()
            assert_close(found, drawn.joints, atol=0.0051, rtol=0)
            difference = sample.image.astype(int) - drawn.image
            assert np.abs(difference).mean() < 8, "JPEG changes a noisy image by a few levels"
            index += 1
    assert index == len(set(ids)) == 20
    assert len(list(image_folder(drawn_folder).iterdir())) == 20


def test_pycocotools_reads_the_annotations(drawn_folder):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(annotation_file(drawn_folder, "test")))
    entries = coco.loadAnns(coco.getAnnIds())
    assert len(entries) == 6
    assert coco.loadCats(coco.getCatIds())[0]["keypoints"] == list(FIGURE_JOINTS)
    for entry in entries:
        assert entry["num_keypoints"] == sum(v > 0 for v in entry["keypoints"][2::3])
        assert 0 < entry["area"] <= entry["bbox"][2] * entry["bbox"][3]


@pytest.mark.parametrize(
    ("num_images", "splits", "sizes"),
    [
        (1000, (0.6, 0.1, 0.3), (600, 100, 300)),
        (1200, (800, 150, 250), (800, 150, 250)),
        (3, (0.98, 0.01, 0.01), (1, 1, 1)),
        (3, (0.01, 0.01, 0.98), (1, 1, 1)),
    ],
)
def test_split_sizes(num_images, splits, sizes):
    assert tuple(figures.DRAWN_SET.split_sizes(num_images, splits).values()) == sizes


def test_an_interrupted_drawing_does_not_look_complete_and_is_completed(tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    calls = []
    draw_figures(whole, 6, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 6) for number in range(1, 7)]

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    for _ in range(2):  # the second time over a complete set
        with pytest.raises(KeyboardInterrupt):
            draw_figures(torn, 6, progress=interrupt)
        assert not list(torn.rglob("person_keypoints_*.json"))
        assert ensure_figures(torn, 6)
        assert contents(torn) == contents(whole)


def test_ensure_draws_once(tmp_path):
    folder = tmp_path / "data" / "figures"
    assert ensure_figures(folder, 5, seed=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not ensure_figures(folder, 5, seed=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"seed": 2}, "seed 1 (wanted: 2)"),
        ({"num_images": 6}, "num_images 5 (wanted: 6)"),
        ({"image_size": (64, 96)}, "image_size [96, 96] (wanted: [64, 96])"),
        ({"splits": (3, 1, 1)}, "'test': 2} (wanted: {'train': 3, 'val': 1, 'test': 1})"),
    ],
)
def test_other_settings_are_refused(tmp_path, changed, found):
    settings = {"num_images": 5, "seed": 1, "splits": (2, 1, 2)}
    draw_figures(tmp_path, **settings)
    before = contents(tmp_path)
    for draw in (draw_figures, ensure_figures):
        with pytest.raises(DetectError) as caught:
            draw(tmp_path, **(settings | changed))
        assert str(tmp_path) in str(caught.value)
        assert found in str(caught.value)
        assert "another folder" in str(caught.value)
    assert contents(tmp_path) == before


def test_an_older_drawing_is_not_taken_for_new(tmp_path):
    draw_figures(tmp_path, 3)
    settings_file = tmp_path / "figures.json"
    settings = json.loads(settings_file.read_text())
    settings_file.write_text(json.dumps(settings | {"version": 0}))
    with pytest.raises(DetectError, match=r"version 0 \(wanted: 1\)"):
        ensure_figures(tmp_path, 3)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for draw in (draw_figures, ensure_figures):
        with pytest.raises(DetectError, match="found other files"):
            draw(tmp_path, 3)
    assert contents(tmp_path) == {"thesis.txt": b"precious"}
    with pytest.raises(DetectError, match="found a file"):
        draw_figures(tmp_path / "thesis.txt", 3)
    (tmp_path / "figures.json").write_text("[]")
    with pytest.raises(DetectError, match="expected the settings of a set of figures"):
        draw_figures(tmp_path, 3)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"num_images": 2}, "found 2"),
        ({"seed": -1}, "found -1"),
        ({"image_size": (32, 128)}, r"found \(32, 128\)"),
        ({"splits": (0.5, 0.5)}, r"found \[0.5, 0.5\]"),
        ({"splits": (0.5, 0.5, 0.0)}, r"found \[0.5, 0.5, 0.0\]"),
        ({"splits": (0.5, 0.5, float("nan"))}, "nan"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, found):
    folder = tmp_path / "figures"
    for draw in (draw_figures, ensure_figures):
        with pytest.raises(DetectError, match=found):
            draw(folder, **({"num_images": 10} | settings))
    assert not folder.exists()
