import pytest
import torch
from torch.testing import assert_close

from detect.detectors.sliding_window.windows import WindowGrid, label_windows, scale_images
from detect.ops import box_iou
from detect.structures import GroundTruth
from tests.contracts import some_truth

GRID = WindowGrid((3, 4), window=32, stride=8, offset=(4.0, 2.0), scale=(2.0, 0.5))
FILL = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)


def test_the_place_of_a_window():
    boxes = GRID.boxes(torch.device("cpu"))
    assert boxes.shape == (3, 4, 4)
    # row 2, column 1: corner (2 + 8, 4 + 16) in the scaled image
    assert_close(boxes[2, 1], torch.tensor([10 / 0.5, 20 / 2, 42 / 0.5, 52 / 2]))


def test_units_lead_to_the_image_and_back():
    boxes = some_truth((40, 120), 2, 12).boxes
    windows = torch.arange(12)
    units = GRID.to_units(boxes, windows)
    back = GRID.to_image(units.view(3, 4, 1, 4)).flatten(0, 2)
    assert_close(back, boxes, rtol=1e-5, atol=1e-4)
    itself = GRID.to_units(GRID.boxes(torch.device("cpu")).flatten(0, 1), windows)
    assert_close(itself, torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(12, 4))


@pytest.mark.parametrize("seed", range(3))
def test_labels_against_a_loop(seed):
    truth = some_truth((40, 120), 2, 3, seed)
    difficult = torch.tensor([False, True, False])
    truth = GroundTruth(truth.boxes, truth.labels, difficult)
    found = label_windows(GRID, truth, 0.35, 0.15)
    for n, window in enumerate(GRID.boxes(torch.device("cpu")).flatten(0, 1)):
        ious = [float(box_iou(window[None], box[None])) for box in truth.boxes]
        best = max(range(3), key=lambda k: ious[k])
        expected = best if ious[best] >= 0.35 and not difficult[best] else -2
        if ious[best] < 0.15:
            expected = -1
        assert int(found[n]) == expected


def test_without_objects_all_is_background():
    found = label_windows(GRID, GroundTruth.empty(), 0.5, 0.3)
    assert found.tolist() == [-1] * 12


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_a_scaled_image_has_room_for_a_window(scale):
    images = torch.rand(2, 3, 20, 50)
    scaled, factors = scale_images(images, scale, FILL, window=40)
    height, width = round(20 * scale), round(50 * scale)
    assert scaled.shape == (2, 3, max(height, 40), max(width, 40))
    assert factors == (height / 20, width / 50)
    if height < 40:
        assert_close(scaled[:, :, height:, :width], FILL.expand(2, 3, 40 - height, width))
    if scale == 1.0:
        assert_close(scaled[:, :, :20], images, rtol=0, atol=0)


def test_a_single_pixel():
    scaled, factors = scale_images(torch.rand(1, 3, 1, 1), 0.3, FILL, window=8)
    assert scaled.shape == (1, 3, 8, 8)
    assert factors == (1.0, 1.0)
