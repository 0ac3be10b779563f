import itertools
import unicodedata

import numpy as np
import pytest
import torch

from detect.structures import Detections, GroundTruth
from detect.visualization import class_color, crop_detections, draw_detections, draw_truth, drawing

NAMES = ["dog", "bicycle", "Müßiggänger"]


def gray(height: int = 300, width: int = 400) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    return Detections(
        torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )


def truth(box: list[float], difficult: bool) -> GroundTruth:
    return GroundTruth(torch.tensor([box]), torch.tensor([0]), torch.tensor([difficult]))


def pixels_of(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (image == np.array(color)).all(axis=2)


# --- colors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "distance"), [(20, 60), (40, 40)])
def test_class_colors_are_distinct(num_classes, distance):
    colors = np.array([class_color(label) for label in range(num_classes)], dtype=float)
    for first, second in itertools.combinations(colors, 2):
        assert np.linalg.norm(first - second) >= distance


def test_class_colors_are_stable_and_bright():
    # sheets and reports of different days are compared by color
    colors = [class_color(label) for label in range(3)]
    assert colors == [(255, 64, 38), (97, 122, 242), (89, 191, 0)]
    assert min(max(class_color(label)) for label in range(200)) >= 190


@pytest.mark.parametrize(
    ("background", "text"),
    [
        ((255, 255, 0), "black"),
        ((0, 255, 0), "black"),
        ((0, 0, 200), "white"),
        ((90, 0, 90), "white"),
    ],
)
def test_text_contrasts_with_its_plate(background, text):
    assert drawing._text_color(background) == {"black": (0, 0, 0), "white": (255, 255, 255)}[text]


# --- boxes ---------------------------------------------------------------------------------------


def test_a_box_is_framed_just_within_its_pixels():
    image = gray()
    drawn = draw_detections(image, detections(([50.0, 100.0, 150.0, 250.0], 0.9, 0)), NAMES)
    colored = pixels_of(drawn, class_color(0))
    # two pixels of line at 300 pixels of image; the plate is above row 100
    for row in (100, 101, 248, 249):
        assert colored[row, 50:150].all()
    for column in (50, 51, 148, 149):
        assert colored[100:250, column].all()
    assert not colored[102:248, 52:148].any()
    assert not colored[250:].any()
    assert not colored[:, :50].any()
    changed = (drawn != image).any(axis=2)
    assert not changed[103:247, 53:147].any(), "the object itself is covered"


def test_the_input_is_not_drawn_on():
    image = gray()
    image.setflags(write=False)
    draw_detections(image, detections(([50.0, 100.0, 150.0, 250.0], 0.9, 0)), NAMES)
    assert (image == 128).all()


def test_nothing_to_draw_gives_an_equal_image():
    image = gray()
    for drawn in (
        draw_detections(image, Detections.empty(), NAMES),
        draw_truth(image, GroundTruth.empty(), NAMES),
        draw_detections(image, detections(([1.0, 1.0, 9.0, 9.0], 0.4, 0)), NAMES, 0.5),
        draw_detections(image, detections(([-50.0, 0.0, -10.0, 50.0], 0.9, 0)), NAMES),
        draw_detections(image, detections(([400.0, 0.0, 450.0, 50.0], 0.9, 0)), NAMES),
    ):
        np.testing.assert_array_equal(drawn, image)
        assert drawn is not image


def test_score_threshold_keeps_what_reaches_it():
    both = detections(([20.0, 100.0, 90.0, 250.0], 0.5, 0), ([200.0, 100.0, 290.0, 250.0], 0.4, 1))
    drawn = draw_detections(gray(), both, NAMES, score_threshold=0.5)
    assert pixels_of(drawn, class_color(0)).any()
    assert not pixels_of(drawn, class_color(1)).any()


def test_the_higher_score_lies_on_top():
    box = [50.0, 100.0, 150.0, 250.0]
    drawn = draw_detections(gray(), detections((box, 0.9, 0), (box, 0.3, 1)), NAMES)
    assert pixels_of(drawn, class_color(0))[200, 50]
    drawn = draw_detections(gray(), detections((box, 0.9, 1), (box, 0.3, 0)), NAMES)
    assert pixels_of(drawn, class_color(1))[200, 50]


def test_difficult_objects_are_dashed():
    box = [50.0, 100.0, 150.0, 250.0]
    plain = pixels_of(draw_truth(gray(), truth(box, False), NAMES), class_color(0))
    dashed = pixels_of(draw_truth(gray(), truth(box, True), NAMES), class_color(0))
    assert plain[249, 50:150].all()
    assert 0.4 < dashed[249, 50:150].mean() < 0.65
    assert 0.4 < dashed[100:250, 149].mean() < 0.65


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 8), (20, 15), (128, 128), (2000, 1500)])
def test_any_size_of_image_and_box(size):
    height, width = size
    rows = [
        ([0.0, 0.0, width, height], 0.9, 0),
        ([width - 0.3, height - 0.3, width + 5.0, height + 5.0], 0.8, 1),
        ([-9.0, -9.0, 0.4, 0.4], 0.7, 2),
        ([0.2, 0.2, 0.3, height], 0.6, 2),
    ]
    image = gray(height, width)
    for name in ("dog", "a name that is much longer than any image of this size is wide"):
        drawn = draw_detections(image, detections(*rows), [name] * 3)
        assert drawn.shape == image.shape
        assert (drawn != image).any()


def test_tiny_images_are_enlarged():
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    drawn = draw_detections(
        image, detections(([8.0, 16.0, 24.0, 28.0], 0.9, 0)), NAMES, upscale_to=256
    )
    assert drawn.shape == (256, 512, 3)
    colored = pixels_of(drawn, class_color(0))
    assert colored[8 * 16 : 8 * 28, 8 * 8].all()
    assert colored[8 * 28 - 1, 8 * 8 : 8 * 24].all()
    unchanged = draw_truth(gray(), GroundTruth.empty(), NAMES, upscale_to=256)
    assert unchanged.shape == gray().shape


def test_faults_of_the_caller_are_named():
    some = detections(([50.0, 100.0, 150.0, 250.0], 0.9, 3))
    with pytest.raises(ValueError, match="found label 3 with 3 names"):
        draw_detections(gray(), some, NAMES)


# --- labels --------------------------------------------------------------------------------------


def plates(image: np.ndarray, found: Detections, names: list[str]) -> dict[int, tuple[int, ...]]:
    """The rectangles of the plates, by class: rows with a long run of the class's color."""
    rectangles = {}
    for label in found.labels.tolist():
        without = np.zeros_like(image)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(drawing, "_draw_box", lambda *_: None)
            drawn = draw_detections(without, found, names)
        rows, columns = np.nonzero(pixels_of(drawn, class_color(label)))
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        rectangles[label] = (int(left), int(top), int(right), int(bottom))
    return rectangles


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 30.0, 30.0],
        [370.0, 0.0, 400.0, 30.0],
        [370.0, 270.0, 400.0, 300.0],
        [0.0, 270.0, 30.0, 300.0],
        [0.0, 0.0, 400.0, 300.0],
    ],
)
def test_plates_stay_within_the_image(box):
    reference = plates(gray(), detections(([150.0, 150.0, 250.0, 250.0], 0.9, 0)), NAMES)[0]
    plate = plates(gray(), detections((box, 0.9, 0)), NAMES)[0]
    assert (plate[2] - plate[0], plate[3] - plate[1]) == (
        reference[2] - reference[0],
        reference[3] - reference[1],
    )


def test_plates_do_not_hide_one_another():
    rows = [([100.0, 100.0 + shift, 220.0, 250.0], 0.9 - shift / 100, shift) for shift in (0, 1, 2)]
    rectangles = plates(gray(), detections(*rows), ["dog", "cat", "cow"]).values()
    for first, second in itertools.combinations(rectangles, 2):
        assert drawing._intersection(first, second) == 0


def test_a_plate_stands_above_its_box_where_there_is_room():
    plate = plates(gray(), detections(([100.0, 100.0, 220.0, 250.0], 0.9, 0)), NAMES)[0]
    assert plate[0] == 100
    assert plate[3] == 100


def test_text_is_legible():
    """The text is of one color, the plate of another, and different texts look different."""
    box = [100.0, 100.0, 390.0, 250.0]
    looks = set()
    for name, score in (("dog", 0.9), ("dog", 0.8), ("cat", 0.9)):
        drawn = draw_detections(gray(), detections((box, score, 0)), [name])
        plate = drawn[80:99, 100:180]
        assert drawing._text_color(class_color(0)) == (0, 0, 0)
        ink = plate.max(axis=2) < class_color(0)[0] / 2
        assert 0.04 < ink.mean() < 0.4
        looks.add(plate.tobytes())
    assert len(looks) == 3


@pytest.mark.parametrize("name", ["Müßiggänger", "Straße", "déjà vu", "человек", "σκύλος", "żółw"])
def test_names_beyond_ascii_are_written(name):
    font = drawing.font_for(name, 20)
    assert font is not None
    missing = font.getmask("\uffff")
    for letter in name:
        assert bytes(font.getmask(letter)) != bytes(missing), unicodedata.name(letter)


def test_names_without_a_font_become_numbers(monkeypatch):
    monkeypatch.setattr(drawing, "font_for", lambda *_: None)
    box = [100.0, 100.0, 390.0, 250.0]
    unknown = draw_detections(gray(), detections((box, 0.9, 1)), ["狗", "自行车"])
    monkeypatch.undo()
    numbered = draw_detections(gray(), detections((box, 0.9, 1)), ["", "class 1"])
    np.testing.assert_array_equal(unknown, numbered)


def test_no_font_claims_letters_that_it_cannot_show():
    # matplotlib brings a font that claims every letter and draws a box for each
    font = drawing.font_for("狗", 12)
    assert font is None or "LastResort" not in str(font.path)
    assert drawing.font_for("\U0010fffd", 12) is None  # of private use: no text font has it


def test_long_texts_are_shortened():
    font = drawing.load_font(12)
    assert drawing.shortened("dog", font, 100) == "dog"
    text = drawing.shortened("a very long name of a class", font, 80)
    assert text.endswith("…")
    assert text.startswith("a very")
    assert font.getlength(text) <= 80
    assert drawing.shortened("dog", font, 1) == ""


# --- crops ---------------------------------------------------------------------------------------


def test_crops_are_the_pixels_within_the_boxes():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = detections(
        ([10.0, 5.0, 20.0, 12.0], 0.9, 0),
        ([10.6, 5.6, 19.2, 11.1], 0.8, 1),
        ([-5.0, -5.0, 3.0, 4.0], 0.7, 1),
        ([55.0, 39.5, 70.0, 80.0], 0.6, 1),
    )
    crops = crop_detections(image, found)
    expected = [image[5:12, 10:20], image[5:12, 10:20], image[0:4, 0:3], image[39:40, 55:60]]
    for crop, part in zip(crops, expected, strict=True):
        np.testing.assert_array_equal(crop, part)
        assert not np.shares_memory(crop, image)
    assert crop_detections(image, Detections.empty()) == []


@pytest.mark.parametrize(
    "box", [[-9.0, 0.0, -2.0, 5.0], [60.0, 0.0, 70.0, 5.0], [0.0, -9.0, 5.0, -1.0]]
)
def test_crops_of_boxes_outside_are_refused(box):
    with pytest.raises(ValueError, match="in row 0"):
        crop_detections(gray(40, 60), detections((box, 0.9, 0)))


# --- joints --------------------------------------------------------------------------------------

JOINTS = [[80.0, 150.0], [120.0, 200.0], [300.0, 40.0]]  # the last one lies outside the box


def test_joints_are_dots_of_the_class_color():
    box = torch.tensor([[50.0, 100.0, 150.0, 250.0]])
    found = Detections(box, torch.tensor([0.9]), torch.tensor([0]), torch.tensor([JOINTS]))
    drawn = draw_detections(gray(), found, NAMES)
    for x, y in JOINTS:
        assert tuple(drawn[int(y), int(x)]) == class_color(0)
        assert (drawn[int(y) - 8, int(x)] == 128).all()


def test_the_joints_of_further_guesses_at_one_person_are_drawn_once():
    box = torch.tensor([[50.0, 100.0, 150.0, 250.0]]).expand(2, 4)
    joints = torch.tensor([JOINTS]).expand(2, -1, -1)
    both = Detections(box, torch.tensor([0.9, 0.4]), torch.tensor([0, 1]), joints)
    drawn = draw_detections(gray(), both, NAMES)
    assert tuple(drawn[40, 300]) == class_color(0)
    shifted = torch.stack((joints[0], joints[1] + 20))
    drawn = draw_detections(gray(), Detections(box, both.scores, both.labels, shifted), NAMES)
    assert tuple(drawn[40, 300]) == class_color(0)
    assert tuple(drawn[60, 320]) == class_color(1)


def test_hidden_joints_are_rings_and_unlabeled_ones_are_not_drawn():
    joints = torch.tensor([[[80.0, 150.0, 2.0], [120.0, 200.0, 1.0], [300.0, 40.0, 0.0]]])
    box, label = torch.tensor([[50.0, 100.0, 150.0, 250.0]]), torch.tensor([0])
    drawn = draw_truth(gray(), GroundTruth(box, label, torch.tensor([False]), joints), NAMES)
    assert tuple(drawn[150, 80]) == class_color(0)
    assert (drawn[200, 120] == 128).all()
    assert pixels_of(drawn, class_color(0))[194:207, 114:127].any()
    assert (drawn[30:50, 290:310] == 128).all()


def test_joints_grow_with_the_image():
    box = torch.tensor([[5.0, 5.0, 60.0, 60.0]])
    found = Detections(box, torch.tensor([0.9]), torch.tensor([0]), torch.tensor([[[30.0, 20.0]]]))
    drawn = draw_detections(gray(64, 64), found, NAMES, upscale_to=256)
    assert tuple(drawn[80, 120]) == class_color(0)
