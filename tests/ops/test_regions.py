import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from detect.ops.regions import warp_regions

FILL = torch.tensor([0.2, 0.5, 0.8]).view(3, 1, 1)


def ramps(height=80, width=100):
    """An image whose first two channels say where a pixel is."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((x, y, torch.ones(height, width)))[None]


def warp(box, size=20, **options):
    (crop,) = warp_regions(ramps(), torch.tensor([box]), torch.tensor([0]), size, **options)
    return crop


def test_without_context_the_box_fills_the_result():
    crop = warp([20.0, 10.0, 60.0, 70.0], context=0)
    steps = (torch.arange(20) + 0.5) / 20
    assert_close(crop[0], (20 + 40 * steps).expand(20, -1))
    assert_close(crop[1], (10 + 60 * steps)[:, None].expand(-1, 20))


def test_the_context_has_the_pixels_that_were_asked_for():
    crop = warp([20.0, 10.0, 60.0, 70.0], context=5)
    # 10 of 20 pixels show the box, which is 40 wide: 4 image pixels each, from the box's edge
    assert_close(crop[0, 10, 5:15], 20 + 4 * (torch.arange(10) + 0.5))
    assert_close(crop[0, 10, 4], torch.tensor(18.0))
    assert_close(crop[1, 5:15, 10], 10 + 6 * (torch.arange(10) + 0.5))


def test_the_square_around_the_region_keeps_its_proportions():
    crop = warp([30.0, 10.0, 50.0, 70.0], size=24, context=2, warp="square")
    # 20 of 24 pixels show the 60 pixels of the longer side
    assert_close(crop[0, 0].diff(), torch.full((23,), 3.0))
    assert_close(crop[1, :, 0].diff(), torch.full((23,), 3.0))
    assert_close(crop[0, 0, [11, 12]].mean(), torch.tensor(40.0))
    assert_close(crop[1, [11, 12], 0].mean(), torch.tensor(40.0))


def test_the_square_can_be_without_what_surrounds_the_region():
    box = [30.0, 10.0, 50.0, 70.0]
    crop = warp(box, size=24, context=2, warp="square_without_context", fill=FILL)
    whole = warp(box, size=24, context=2, warp="square", fill=FILL)
    # 20 pixels wide at 3 a pixel, with 2 pixels of context on each side
    shown = torch.zeros(24, dtype=torch.bool)
    shown[int(12 - 20 / 6 - 2 + 0.5) : int(12 + 20 / 6 + 2 + 0.5)] = True
    assert_close(crop[:, :, shown], whole[:, :, shown])
    assert_close(crop[:, :, ~shown], FILL.expand(3, 24, int((~shown).sum())))


def test_beyond_the_border_is_the_filling():
    crop = warp([80.0, 60.0, 120.0, 100.0], context=0, fill=FILL)
    assert_close(crop[:, 0, 0], torch.tensor([81.0, 61.0, 1.0]))
    assert_close(crop[:, -1, -1], FILL.flatten())
    far = warp([500.0, 500.0, 510.0, 510.0], fill=FILL, context=2)
    assert_close(far, FILL.expand(3, 20, 20))


def test_each_region_is_of_its_own_image():
    images = torch.cat((ramps(), ramps() + 1000))
    boxes = torch.tensor(
        [[10.0, 10.0, 50.0, 50.0], [10.0, 10.0, 50.0, 50.0], [9.0, 9.0, 29.0, 49.0]]
    )
    crops = warp_regions(images, boxes, torch.tensor([1, 0, 1]), 16, context=2)
    assert_close(crops[0], crops[1] + 1000)
    assert crops[2].min() > 1000


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_whole_factors_average_as_pooling_does(factor):
    image = torch.rand(1, 3, 64, 64)
    box = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    crop = warp_regions(image, box, torch.tensor([0]), 64 // factor, context=0)
    assert_close(crop, functional.avg_pool2d(image, factor))


def test_enlarging_is_bilinear():
    image = torch.rand(1, 3, 16, 16)
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    crop = warp_regions(image, box, torch.tensor([0]), 48, context=0)
    expected = functional.interpolate(image, (48, 48), mode="bilinear", align_corners=False)
    assert_close(crop, expected)


def test_no_regions():
    crops = warp_regions(ramps(), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 64)
    assert crops.shape == (0, 3, 64, 64)


def test_boxes_are_left_as_they_are():
    boxes = torch.tensor([[20.0, 10.0, 60.0, 70.0]])
    warp_regions(ramps(), boxes, torch.tensor([0]), 20, context=3, warp="square")
    assert boxes.tolist() == [[20.0, 10.0, 60.0, 70.0]]


def test_too_much_context_is_refused():
    with pytest.raises(ValueError, match="less than half of 32 pixels, found 16"):
        warp([0.0, 0.0, 9.0, 9.0], size=32, context=16)
