import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detect.backbones import Backbone, create_backbone
from detect.detectors import Localizer, SlidingWindow, predict
from detect.errors import DetectError
from detect.structures import Batch, GroundTruth, ImageMeta
from tests.contracts import image_batch, some_truth

NUM_CLASSES = 3


def without_padding():
    """Two pools and no padding; ends in a pool of 2."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(),  # 33 → 16
        nn.MaxPool2d(2, 2),  # 8
        nn.Conv2d(8, 12, 3), nn.ReLU(),  # 6
        nn.MaxPool2d(2, 2),  # 3
    )  # fmt: skip
    head = nn.Sequential(nn.Flatten(), nn.Linear(12 * 9, 20), nn.ReLU(), nn.Linear(20, 10))
    return Backbone(trunk, head, image_size=33)


def build(backbone=None, **options):
    torch.manual_seed(0)
    options = {"input_size": 80, "scales": (1.0, 1.4), "hidden_features": (16, 8), **options}
    return SlidingWindow(backbone or without_padding(), NUM_CLASSES, **options).eval()


def images(height=80, width=96):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def look(detector, photos, mode="dense"):
    detector.mode = mode
    return list(detector.look(photos))


@pytest.mark.parametrize("attach", ["trunk", "head"])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("offsets", [1, 2])
def test_dense_equals_crops_on_a_trunk_without_padding(attach, class_specific, offsets):
    detector = build(attach=attach, class_specific=class_specific, offsets=offsets)
    dense, crops = (look(detector, images(), mode) for mode in ("dense", "crops"))
    assert len(dense) == len(crops) == 2 * offsets**2
    for one, other in zip(dense, crops, strict=True):
        assert one.grid == other.grid
        assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)
        assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-4)
        assert float(one.logits.std()) > 0


def test_dense_equals_crops_with_a_map_of_fewer_channels():
    detector = build(reduced_channels=5)
    dense, crops = (look(detector, images(), mode) for mode in ("dense", "crops"))
    for one, other in zip(dense, crops, strict=True):
        assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_the_loss_of_the_heads_ends_at_the_trunk():
    detector = build(attach="head", positive_iou=0.1, negative_iou=0.1).train()
    truths = tuple(some_truth((80, 96), NUM_CLASSES, 2, seed) for seed in range(2))
    terms = detector.heads_loss(image_batch((80, 96), truths))
    assert set(terms) == {"classification", "boxes"}
    sum(terms.values()).backward()
    learned = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None}
    assert learned == {"backbone", "classifier", "regressor"}
    assert all(parameter.grad is None for parameter in detector.backbone.trunk.parameters())


def test_offsets_lie_between_the_steps():
    detector = build(offsets=2, scales=(1.0,))
    corners = [seen.grid.corners(torch.device("cpu"))[0, 0] for seen in look(detector, images())]
    assert detector.backbone.stride == 8
    assert torch.stack(corners).tolist() == [[0, 0], [4, 0], [0, 4], [4, 4]]


def test_offsets_without_a_pool_shift_the_image():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 4, stride=2))
    backbone = Backbone(trunk, nn.Sequential(nn.Flatten(), nn.Linear(72, 6)), image_size=17)
    detector = build(backbone, offsets=2, scales=(1.0,))
    dense, crops = (look(detector, images(), mode) for mode in ("dense", "crops"))
    for one, other in zip(dense, crops, strict=True):
        assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)


def test_a_localizer_sees_what_its_window_shows():
    """The same weights, once as a localizer of a crop, once as one window of many."""
    localizer = Localizer(without_padding(), NUM_CLASSES, input_size=33, hidden_features=(16, 8))
    detector = build(background=False, scales=(1.0,), hidden_features=(16, 8))
    different = detector.load_state_dict(localizer.state_dict(), strict=False)
    assert set(different.missing_keys) == {"num_windows_shown", "num_objects_shown"}
    assert not different.unexpected_keys
    photos = (images() * 255).round().to(torch.uint8)
    seen = look(detector, photos.float() / 255)[0]
    row, column = 2, 3
    crop = photos[:, :, 16 : 16 + 33, 24 : 24 + 33]
    metas = (ImageMeta("a", None, (33, 33), (33, 33)),) * 2
    guesses = localizer.eval().detect(Batch(crop, (GroundTruth.empty(),) * 2, metas))
    shift = torch.tensor([24.0, 16.0, 24.0, 16.0])
    for index, found in enumerate(guesses):
        probabilities = seen.logits[index, row, column].softmax(0)
        assert_close(found.scores, probabilities[found.labels], rtol=1e-4, atol=1e-5)
        box = seen.boxes[index, row, column, 0] - shift
        assert_close(found.boxes[0], box, rtol=1e-4, atol=1e-3)


def test_changed_weights_reach_the_dense_pass():
    detector = build(scales=(1.0,))
    before = look(detector, images())[0].logits
    with torch.no_grad():
        detector.classifier.bias += 1
        detector.backbone.head[1].weight *= 1.5
    after = look(detector, images())[0].logits
    assert_close(after, look(detector, images(), "crops")[0].logits, rtol=1e-4, atol=1e-4)
    assert (after - before).abs().max() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (20, 20)])
@pytest.mark.parametrize("combine", ["merge", "nms"])
def test_images_smaller_than_a_window(size, combine):
    detector = build(combine=combine, score_threshold=0.0)
    batch = image_batch(size, (GroundTruth.empty(),))
    (found,) = detector.detect(batch)
    assert len(found) > 0
    (inside,) = predict(detector, batch)
    assert (inside.boxes[:, 2] <= size[1]).all()


# --- training ------------------------------------------------------------------------------------


def test_examples_are_windows_of_the_dense_pass():
    detector = build(create_backbone("tiny"), input_size=96, scales=(1.3,), scales_per_step=1)
    truths = tuple(some_truth((96, 96), NUM_CLASSES, 2, seed) for seed in range(2))
    batch = image_batch((96, 96), truths)
    torch.manual_seed(4)
    examples = detector._examples(batch)
    count = len(examples.labels)
    assert examples.maps.shape == (count, 128, 4, 4)
    assert ((examples.labels < NUM_CLASSES) == examples.is_positive).all()
    assert (examples.labels[~examples.is_positive] == NUM_CLASSES).all()


def one_large_object(size=64):
    box = torch.tensor([[4.0, 4.0, 60.0, 60.0]])
    truth = GroundTruth(box, torch.tensor([1]), torch.tensor([False]))
    return image_batch((size, size), (truth,))


def test_positive_windows_have_the_object_in_their_units():
    detector = build(
        create_backbone("tiny"), input_size=64, scales=(1.0,), scales_per_step=1, positive_iou=0.3
    )
    batch = one_large_object()
    found = set()
    for seed in range(5):
        torch.manual_seed(seed)
        examples = detector._examples(batch)
        units = examples.units[examples.is_positive]
        # 56 of the window's 64 pixels, wherever the window begins
        assert_close(units[:, 2:], torch.full_like(units[:, 2:], 56 / 64))
        assert (examples.labels[examples.is_positive] == 1).all()
        found |= {tuple(row) for row in units[:, :2].tolist()}
    assert len(found) > 3  # the shift of the image differs


def test_the_hardest_background_is_among_the_examples():
    detector = build(
        create_backbone("tiny"), input_size=192, scales=(1.0,), scales_per_step=1,
        negatives_per_positive=8,
    )  # fmt: skip
    batch = one_large_object(192)
    torch.manual_seed(0)
    images = batch.unit_images()
    features = detector.backbone(images)
    windows = features.unfold(2, 4, 1).unfold(3, 4, 1)
    labels, _ = detector._targets(look(detector, images)[0].grid, batch.truths)
    background = (labels.flatten() == NUM_CLASSES).nonzero().squeeze(1)
    scores = detector._foreground(windows, background, labels.shape[1])
    hardest = background[scores.argmax()]
    for seed in range(4):
        torch.manual_seed(seed)
        chosen = detector._choose(windows, labels)
        assert len(chosen.unique()) == len(chosen)
        assert hardest in chosen
        negatives = chosen[labels.flatten()[chosen] == NUM_CLASSES]
        positives = len(chosen) - len(negatives)
        assert len(negatives) == 8 * positives


def test_merged_scores_are_in_units_of_the_windows_that_show_an_object():
    torch.manual_seed(0)
    options = {"input_size": 96, "scales": (1.0, 1.5), "positive_iou": 0.2, "negative_iou": 0.2}
    detector = build(create_backbone("tiny"), **options)
    batch = image_batch((96, 96), (some_truth((96, 96), NUM_CLASSES, 2, 1),) * 2)
    plain = detector.detect(batch)
    detector.loss(batch)  # in evaluation mode nothing is counted
    assert int(detector.num_objects_shown) == 0
    detector.train().loss(batch)
    assert int(detector.num_objects_shown) == 8  # two images of two objects at two scales
    assert int(detector.num_windows_shown) > 8
    per_object = 2 * int(detector.num_windows_shown) / 8
    fresh = build(create_backbone("tiny"), **options)
    fresh.load_state_dict(detector.state_dict())
    counted = fresh.detect(batch)
    fresh.num_windows_shown.zero_()
    for one, other in zip(counted, fresh.detect(batch), strict=True):
        assert_close(one.scores * per_object, other.scores)
        assert_close(one.boxes, other.boxes)
    assert len(plain[0]) > 0


def test_an_image_without_objects_teaches_background():
    detector = build(create_backbone("tiny"), input_size=96)
    terms = detector.loss(image_batch((96, 96), (GroundTruth.empty(),)))
    assert terms["classification"].item() > 0
    assert terms["boxes"].item() == 0


def test_background_may_not_begin_above_what_shows_an_object():
    with pytest.raises(DetectError, match=r"negative_iou: expected at most detector\.positive_iou"):
        build(positive_iou=0.2, negative_iou=0.3)
