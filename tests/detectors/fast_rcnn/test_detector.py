from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.data import fit_to_input
from detect.detectors import FastRCNN, predict
from detect.detectors.fast_rcnn import region_detector
from detect.errors import DetectError
from detect.ops import box_iou
from detect.structures import Batch, GroundTruth, ImageMeta, Sample
from detect.training import GradientSettings, Plan
from tests.contracts import NoBatches, image_batch, some_truth
from tests.detectors.rcnn.training_images import SIZE, DrawnImages, Silent

NUM_CLASSES = 2
RANDOM = {"proposals": "random-boxes", "proposal_options": {"count": 40}}


def build(backbone="tiny", seed=0, **options) -> FastRCNN:
    torch.manual_seed(seed)
    settings = {"input_size": 64, "shorter_side": None, **RANDOM, **options}
    return FastRCNN(create_backbone(backbone), NUM_CLASSES, **settings).eval()


def batch_of(sizes, num_objects=2, spec=None):
    """Noise of several sizes, brought to a detector's input."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number, (height, width) in enumerate(sizes):
        image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
        meta = ImageMeta(str(number), None, (height, width), (height, width))
        truth = some_truth((height, width), NUM_CLASSES, num_objects, number)
        samples.append(fit_to_input(Sample(image.numpy(), truth, meta), spec))
    return Batch.from_samples(samples)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "C5"}, "detector.level: unknown 'C5'.*C2, C3, C4"),
        ({"shorter_side": 600}, "detector.shorter_side: expected 1 to 64 pixels"),
        ({"scales": ()}, "detector.scales: expected at least one number"),
        ({"truncated_svd": (8, 8)}, "each of the 1 fully connected"),
        ({"truncated_svd": (5000,)}, "expected 1 to 256 singular values"),
        ({"regions_per_image": 0}, "detector.regions_per_image: expected 1 or more"),
        ({"head": "mlp", "hidden_features": ()}, "hidden_features: expected at least one number"),
        ({"proposals": "rpm:runs/a"}, "rpn:RUN"),
    ],
)
def test_settings_that_cannot_be(options, words):
    with pytest.raises(DetectError, match=words):
        build(**options).proposal_source  # noqa: B018 — sources are made when they are wanted


def test_vgg_is_cut_before_its_last_pool_and_pools_regions_to_7():
    with torch.device("meta"):
        backbone = create_backbone("vgg16")
    assert (backbone.level_channels["C4"], backbone.grid_at("C4")) == (512, 7)
    assert len(backbone.part_behind("C4")) == 1  # the head alone
    resnet = create_backbone("resnet18")
    assert resnet.grid_at("C4") == 14  # conv5_x takes it to 7


# --- training -------------------------------------------------------------------------------------


def test_a_step_learns_from_so_many_regions_of_each_image():
    detector = build(regions_per_image=12, background_iou=(0.0, 0.5)).train()
    seen = []
    detector.classifier.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    detector.loss(batch_of([(64, 64), (50, 60)], spec=detector.input_spec))
    assert seen == [24]


def test_the_box_loss_has_its_weight():
    batch = batch_of([(64, 64)], spec=build().input_spec)
    losses = []
    for weight in (1.0, 3.0):
        detector = build(box_weight=weight)
        torch.manual_seed(0)
        losses.append(detector.loss(batch))
    assert_close(losses[1]["boxes"], 3 * losses[0]["boxes"])
    assert_close(losses[1]["classification"], losses[0]["classification"])
    assert float(losses[0]["boxes"].detach()) > 0


def test_a_lesser_beta_asks_more_of_small_errors():
    batch = batch_of([(64, 64)], spec=build().input_spec)
    losses = []
    for beta in (1.0, 1 / 9):
        detector = build(box_beta=beta)
        torch.manual_seed(0)
        losses.append(detector.loss(batch))
    assert losses[1]["boxes"] > losses[0]["boxes"] > 0
    assert_close(losses[1]["classification"], losses[0]["classification"])


def test_the_trunk_sees_each_image_once():
    detector = build()
    seen = []
    detector.backbone.trunk[0].register_forward_hook(
        lambda _, inputs, __: seen.append(tuple(inputs[0].shape))
    )
    detector.detect(batch_of([(64, 64), (50, 60)], spec=detector.input_spec))
    assert seen == [(2, 3, 64, 64)]


def test_a_step_draws_one_of_the_scales():
    detector = build(scales=(0.5, 1.0, 1.5)).train()
    sizes = set()
    detector.backbone.trunk[0].register_forward_hook(
        lambda _, inputs, __: sizes.add(inputs[0].shape[2])
    )
    batch = batch_of([(64, 64)], spec=detector.input_spec)
    torch.manual_seed(0)
    for _ in range(20):
        detector.loss(batch)
    assert sizes == {32, 64, 96}


def test_large_regions_are_taken_from_small_scales():
    detector = build(scales=(0.5, 1.0, 4.0))
    taken = []

    def note(_, choice, *__):
        taken.append(choice)
        return torch.zeros(len(choice), detector.map_channels, 4, 4)

    boxes = torch.tensor([[0.0, 0, 500, 500], [0, 0, 200, 200], [0, 0, 50, 60]])
    maps = detector._all_maps(batch_of([(64, 64)], spec=detector.input_spec))
    assert [found.scale for found in maps] == [0.5 / 16, 1 / 16, 4 / 16]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_detector, "pool_regions", note)
        detector.region_features(maps, boxes, torch.zeros(3).long(), scales=detector.scales)
    assert taken[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("num_objects", [0, 1, 300])
def test_odd_images_train_and_detect(num_objects):
    detector = build(input_size=128, shorter_side=64, head="mlp", hidden_features=(8,))
    batch = batch_of([(30, 2000), (2000, 30), (64, 64)], num_objects, detector.input_spec)
    assert batch.metas[0].input_size == (2, 128)
    terms = detector.train().loss(batch)
    total = sum(terms.values())
    assert total.isfinite()
    total.backward()
    for parameter in detector.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    for found in predict(detector, batch):
        assert found.boxes.isfinite().all()


@pytest.mark.parametrize("backbone", ["lenet", "alexnet", "vgg11", "resnet18"])
def test_a_narrow_image_alone_leaves_a_map_at_each_scale(backbone):
    options = {"head": "mlp", "hidden_features": (8,), "scales": (0.4, 1.0)}
    detector = build(backbone, input_size=200, shorter_side=100, **options)
    for size in [(30, 2000), (2000, 30)]:
        batch = batch_of([size], spec=detector.input_spec)
        for _ in range(4):  # each draws a scale
            assert sum(detector.loss(batch).values()).isfinite()
        detector.detect(batch)


def test_no_proposals_at_all():
    detector = build()
    batch = image_batch(SIZE, (GroundTruth.empty(),) * 2)
    empty = Batch(batch.images, batch.truths, batch.metas, (torch.zeros(0, 4),) * 2)
    assert [len(found) for found in detector.detect(empty)] == [0, 0]
    assert all(float(term.detach()) == 0 for term in detector.loss(empty).values())
    assert sum(detector.loss(empty).values()).requires_grad


# --- SVMs and truncation --------------------------------------------------------------------------


def test_svms_take_the_place_of_the_softmax(tmp_path):
    detector = build(svm=True, svm_cost=1.0, background_iou=(0.0, 0.5))
    images = DrawnImages()
    plan = Plan({"train": GradientSettings()}, lambda _: NoBatches(), images, tmp_path)
    phases = detector.phases(plan)
    assert [phase.name for phase in phases] == ["train", "features", "svms"]
    assert "SVMs have not been trained" in detector.lacks()
    told = [phase.fit(Silent()) for phase in phases[1:]]
    num_regions = sum(
        len(truth) + len(found)
        for truth, found in zip(images.truths, images.proposals, strict=True)
    )
    assert told[0] == {"cache_bytes": 2 * num_regions * detector.feature_dim}
    assert not list(tmp_path.iterdir())  # given back
    assert detector.lacks() is None
    batch = next(iter(images.batches(1)))
    boxes, numbers = batch.truths[0].boxes, torch.zeros(len(batch.truths[0])).long()
    maps = detector._all_maps(batch)
    scores, _ = detector.outputs(maps, boxes, numbers, scales=detector.scales)
    features = detector.region_features(maps, boxes, numbers)
    assert_close(scores, features @ detector.svms.weight.T + detector.svms.bias)
    assert (scores.argmax(dim=1) == batch.truths[0].labels).all()  # of what it was trained on
    detector.svm_settings = replace(detector.svm_settings, svm=False)
    probabilities, _ = detector.outputs(maps, boxes, numbers, scales=detector.scales)
    assert (probabilities > 0).all()
    assert (probabilities.sum(dim=1) < 1).all()


def test_truncated_layers_are_used_in_detection_alone():
    layers = {"head": "mlp", "hidden_features": (96, 64)}
    plain, exact = build(**layers), build(**layers, truncated_svd=(96, 64))
    coarse = build(**layers, truncated_svd=(2, 2))
    batch = image_batch(SIZE, (some_truth(SIZE, NUM_CLASSES, 2),) * 2)
    for detector in (exact, coarse):
        detector.load_state_dict(plain.state_dict())
    boxes, images = torch.tensor([[3.0, 4, 40, 50], [10, 10, 60, 30]]), torch.tensor([0, 1])
    maps = plain._all_maps(batch)
    features = [d.region_features(maps, boxes, images) for d in (plain, exact, coarse)]
    assert_close(features[1], features[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(features[2], features[0], atol=1e-3)
    trained = coarse.train().region_features(maps, boxes, images)
    assert_close(trained, features[0])
    # when the layers change, the thin ones follow
    with torch.no_grad():
        exact.hidden[1].weight.mul_(2)
    changed = exact.eval().region_features(maps, boxes, images)
    assert not torch.allclose(changed, features[0])


def test_detections_overlap_little_within_a_class():
    detector = build(iou_threshold=0.2, score_threshold=0.0)
    batch = image_batch(SIZE, (GroundTruth.empty(),) * 3)
    for found in detector.detect(batch):
        assert 0 < len(found) <= 100
        for label in range(NUM_CLASSES):
            boxes = found.boxes[found.labels == label]
            iou = box_iou(boxes, boxes).fill_diagonal_(0)
            assert float(iou.max()) <= 0.2 + 1e-6
    few = build(score_threshold=0.0, max_detections=3)
    assert [len(found) for found in few.detect(batch)] == [3, 3, 3]
