import copy

import pytest
import torch
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.data import fit_to_input
from detect.detectors import FasterRCNN, predict
from detect.detectors.faster_rcnn import RPNProposals
from detect.errors import DetectError
from detect.ops import box_iou
from detect.structures import Batch, GroundTruth, ImageMeta, Sample
from detect.training import FitPhase, GradientSettings, Plan
from tests.contracts import NoBatches, image_batch, some_truth
from tests.detectors.rcnn.training_images import Silent

NUM_CLASSES = 2
SIZE = (64, 64)
SMALL = {
    "input_size": 64,
    "shorter_side": None,
    "head": "mlp",
    "hidden_features": (16,),
    "rpn_channels": 16,
    "anchor_sizes": (16, 24),
    "regions_per_image": 16,
}
FPN = {"neck": "fpn", "neck_channels": 8, "anchor_sizes": (12, 20, 32, 48)}
SETTINGS = {name: GradientSettings() for name in FasterRCNN.phase_names}


def build(backbone="tiny", seed=0, **options) -> FasterRCNN:
    torch.manual_seed(seed)
    return FasterRCNN(create_backbone(backbone), NUM_CLASSES, **{**SMALL, **options}).eval()


def phases_of(detector):
    return detector.phases(Plan(SETTINGS, lambda _: NoBatches()))


def some_batch(num_objects=2):
    truths = tuple(some_truth(SIZE, NUM_CLASSES, num_objects, seed) for seed in range(2))
    return image_batch(SIZE, truths)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anchor_negative_iou": 0.8}, "anchor_negative_iou: expected at most"),
        ({"anchor_sizes": ()}, "anchor_sizes: expected at least one number"),
        ({"anchor_ratios": ()}, "anchor_ratios: expected at least one number"),
        ({"anchor_ratios": (1.0, -2.0)}, "anchor_ratios.1: expected more than 0, found -2"),
        ({"proposal_iou": 7.0}, "proposal_iou: expected 0 to 1, found 7"),
        ({"background_iou": (0.6, 0.5)}, "background_iou: expected two rising numbers"),
        ({"box_weight": -1.0}, "box_weight: expected 0 or more"),
        ({"box_beta": -1.0}, "box_beta: expected 0 or more"),
        ({"max_detections": 0}, "max_detections: expected 1 or more"),
        ({"neck": "fpn", "anchor_sizes": (8, 16)}, "one for each of the pyramid's 4 levels"),
        ({"neck": "fpn", "head": "backbone"}, "expected detector.head mlp and no detector.level"),
        ({"neck": "fpn", "level": "C3"}, "expected detector.head mlp and no detector.level"),
        ({"test_proposals": (10, 0)}, "detector.test_proposals.1: expected 1 or more"),
    ],
)
def test_settings_that_cannot_be(options, words):
    with pytest.raises(DetectError, match=words):
        build(**options)


# --- joint training -------------------------------------------------------------------------------


def test_joint_training_has_four_losses_and_reaches_the_trunk_through_both():
    detector = build().train()
    terms = detector.loss(some_batch())
    assert list(terms) == ["objectness", "anchor_boxes", "classification", "boxes"]
    first = next(detector.backbone.parameters())
    for name in ("objectness", "classification"):
        (gradient,) = torch.autograd.grad(terms[name], first, retain_graph=True)
        assert gradient.any(), name
    # proposals are taken as given: the proposal network learns nothing from the regions
    (gradient,) = torch.autograd.grad(
        terms["classification"], detector.rpn.regressor.weight, allow_unused=True
    )
    assert gradient is None


@pytest.mark.parametrize("options", [{}, FPN, {"crossing_anchors": True}], ids=str)
@pytest.mark.parametrize("num_objects", [0, 1, 300])
def test_odd_images_train_and_detect(num_objects, options):
    detector = build(input_size=128, shorter_side=64, **options)
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number, size in enumerate([(30, 2000), (2000, 30), (64, 64)]):
        image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
        meta = ImageMeta(str(number), None, size, size)
        truth = some_truth(size, NUM_CLASSES, num_objects, number)
        samples.append(fit_to_input(Sample(image.numpy(), truth, meta), detector.input_spec))
    batch = Batch.from_samples(samples)
    total = sum(detector.train().loss(batch).values())
    assert total.isfinite()
    total.backward()
    for parameter in detector.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    for found in predict(detector, batch):
        assert found.boxes.isfinite().all()


@pytest.mark.parametrize("backbone", ["lenet", "alexnet", "vgg11", "resnet18"])
@pytest.mark.parametrize("size", [(30, 2000), (2000, 30), (3, 2000), (1, 1)])
def test_narrow_images_alone_leave_a_map(size, backbone):
    torch.manual_seed(0)
    options = {"head": "mlp", "hidden_features": (8,), "rpn_channels": 8}
    detector = FasterRCNN(
        create_backbone(backbone), NUM_CLASSES, input_size=200, shorter_side=100, **options
    )
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8).numpy()
    truth = GroundTruth(
        torch.tensor([[0.0, 0, size[1], size[0]]]), torch.tensor([1]), torch.tensor([False])
    )
    sample = Sample(image, truth, ImageMeta("0", None, size, size))
    batch = Batch.from_samples([fit_to_input(sample, detector.input_spec)])
    total = sum(detector.loss(batch).values())
    assert total.isfinite()
    total.backward()
    (found,) = predict(detector, batch)
    assert (found.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()


def test_no_proposal_survives():
    detector = build(min_proposal_size=1000.0)
    assert [len(found) for found in detector.detect(some_batch())] == [0, 0]
    # the objects themselves are regions
    assert float(detector.train().loss(some_batch())["classification"].detach()) > 0
    terms = detector.loss(some_batch(0))
    assert float(terms["classification"].detach()) == 0
    sum(terms.values()).backward()


def test_proposals_of_an_image_do_not_depend_on_the_others():
    detector = build(test_proposals=(40, 7), proposal_iou=0.5)
    batch = some_batch()
    together = detector.propose(batch)
    for row, found in enumerate(together):
        assert 0 < len(found) <= 7
        iou = box_iou(found, found).fill_diagonal_(0)
        assert float(iou.max()) <= 0.5 + 1e-6
        single = Batch(batch.images[row : row + 1], batch.truths[:1], batch.metas[row : row + 1])
        (alone,) = detector.propose(single)
        assert_close(alone, found, atol=1e-3, rtol=1e-4)


# --- the four steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, FPN, {"head": "backbone"}], ids=str)
def test_the_four_steps_train_what_the_paper_says(options):
    detector = build(recipe="alternating", **options).train()
    before = {name: value.clone() for name, value in detector.named_parameters()}
    changed = {}
    phases = phases_of(detector)
    names = [phase.name for phase in phases]
    assert names == ["rpn", "fast_rcnn", "share", "shared_rpn", "shared_fast_rcnn"]
    for phase in phases:
        if isinstance(phase, FitPhase):
            phase.fit(Silent())
            assert bool(detector.is_shared)
            continue
        buffers = {name: value.clone() for name, value in detector.backbone.named_buffers()}
        phase.module.train()
        optimizer = torch.optim.SGD(phase.module.parameters(), 0.1)
        sum(phase.loss(some_batch()).values()).backward()
        optimizer.step()
        detector.zero_grad()
        changed[phase.name] = {
            name.split(".")[0]
            for name, value in detector.named_parameters()
            if not torch.equal(value, before[name])
        }
        before = {name: value.clone() for name, value in detector.named_parameters()}
        if phase.name in ("rpn", "shared_rpn"):
            # running statistics of a held trunk stay as they are, too
            for name, value in detector.backbone.named_buffers():
                assert torch.equal(value, buffers[name]), (phase.name, name)
    neck = {"neck"} if "neck" in options else set()
    hidden = {"backbone"} if "head" in options else {"hidden"}
    outputs = {"classifier", "regressor"}
    rpn_neck = {f"rpn_{name}" for name in neck}
    assert changed["rpn"] == {"rpn_backbone", "rpn"} | rpn_neck
    assert changed["fast_rcnn"] == {"backbone"} | neck | hidden | outputs
    assert changed["shared_rpn"] == {"rpn"}
    assert changed["shared_fast_rcnn"] == hidden | outputs


def test_the_last_step_leaves_the_shared_layers_alone():
    detector = build(recipe="alternating", head="backbone", level="C3").train()
    phases = phases_of(detector)
    detector.is_shared.fill_(True)
    shared = copy.deepcopy(detector.backbone.trunk[:5].state_dict())
    phases[-1].module.train()
    optimizer = torch.optim.SGD(phases[-1].module.parameters(), 0.1)
    sum(phases[-1].loss(some_batch()).values()).backward()
    optimizer.step()
    for name, value in detector.backbone.trunk[:5].state_dict().items():
        assert torch.equal(value, shared[name]), name


def test_before_they_share_proposals_come_from_the_other_trunk():
    detector = build(recipe="alternating")
    phases_of(detector)
    batch = some_batch()
    assert_close(detector.propose(batch)[0], build(recipe="joint").propose(batch)[0])
    with torch.no_grad():
        for parameter in detector.rpn_backbone.parameters():
            parameter.mul_(-1.5)
    moved = detector.propose(batch)[0]
    detector.is_shared.fill_(True)
    own = detector.propose(batch)[0]
    assert own.shape != moved.shape or not torch.allclose(own, moved)


# --- as a source ----------------------------------------------------------------------------------


def test_proposals_for_others_are_in_the_frame_of_the_image():
    detector = build()
    image = torch.randint(0, 256, (100, 40, 3), dtype=torch.uint8).numpy()
    found = torch.from_numpy(RPNProposals(detector, "0")(image, "a"))
    assert len(found) > 3
    assert (found >= 0).all()
    assert float(found[:, 2].max()) <= 40
    assert 64 < float(found[:, 3].max()) <= 100
    meta = ImageMeta("a", None, (100, 40), (100, 40))
    fitted = fit_to_input(Sample(image, GroundTruth.empty(), meta), detector.input_spec)
    (expected,) = detector.propose(Batch.from_samples([fitted]))
    assert_close(found, fitted.meta.to_original(expected), atol=1e-3, rtol=1e-5)
