import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.detectors import Localizer
from detect.errors import DetectError
from detect.ops import elementwise_box_iou
from detect.structures import Batch, GroundTruth
from detect.training import GradientSettings, Plan
from tests.contracts import NoBatches, image_batch, some_truth

SIZE = (64, 64)
NUM_CLASSES = 4


def build(seed=0, **options):
    torch.manual_seed(seed)
    options = {"input_size": 64, "hidden_features": (16, 8), **options}
    return Localizer(create_backbone("tiny"), NUM_CLASSES, **options)


def truths(*counts):
    return tuple(some_truth(SIZE, NUM_CLASSES, count, n) for n, count in enumerate(counts))


def set_boxes(localizer, units):
    """Make the regression head give these (center, size) for any image."""
    with torch.no_grad():
        last = localizer.regressor[-1]
        last.weight.zero_()
        last.bias.copy_(torch.as_tensor(units, dtype=torch.float32).flatten())


def set_logits(localizer, logits):
    with torch.no_grad():
        localizer.classifier.weight.zero_()
        localizer.classifier.bias.copy_(torch.as_tensor(logits, dtype=torch.float32).flatten())


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({}, 4),
        ({"class_specific": True}, 4 * NUM_CLASSES),
        ({"num_objects": 3}, 12),
        ({"num_objects": 3, "class_specific": True}, 12 * NUM_CLASSES),
        ({"attach": "head"}, 4),
    ],
)
def test_the_regression_head_has_the_numbers_of_the_paper(options, outputs):
    localizer = build(**options)
    assert localizer.regressor[-1].out_features == outputs
    linear = [layer for layer in localizer.regressor if isinstance(layer, nn.Linear)]
    backbone = localizer.backbone
    inputs = backbone.feature_dim if options.get("attach") == "head" else 128 * 16
    assert [layer.in_features for layer in linear] == [inputs, 16, 8]


@pytest.mark.parametrize(("attach", "hidden"), [("trunk", [4096, 1024]), ("head", [])])
def test_the_hidden_layers_are_those_of_the_papers_by_default(attach, hidden):
    regressor = build(attach=attach, hidden_features=None).regressor
    linear = [layer for layer in regressor if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*hidden, 4]


def test_a_box_is_center_and_size_in_units_of_the_input():
    localizer = build()
    set_boxes(localizer, [0.5, 0.25, 0.5, 0.125])
    found = localizer.detect(image_batch(SIZE, truths(0)))[0]
    assert_close(found.boxes[0], torch.tensor([16.0, 12.0, 48.0, 20.0]))


def test_five_guesses_are_the_most_probable_classes():
    torch.manual_seed(0)
    localizer = Localizer(
        create_backbone("tiny"), 7, input_size=64, hidden_features=(8,), class_specific=True
    )
    logits = [0.0, 5.0, 2.0, 9.0, 1.0, 9.0, -3.0]
    set_logits(localizer, logits)
    units = torch.full((7, 4), 0.5)
    units[:, 0] = torch.arange(7) / 10
    set_boxes(localizer, units)
    (found,) = localizer.detect(image_batch(SIZE, truths(0)))
    assert found.labels.tolist() == [3, 5, 1, 2, 4]  # ties go to the lower class
    assert_close(found.scores, torch.tensor(logits).softmax(0)[found.labels])
    centers = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
    assert_close(centers, found.labels / 10 * 64)  # each class has its own box


def test_the_target_is_the_largest_object():
    localizer = build()
    (truth,) = truths(3)
    batch = image_batch(SIZE, (truth,))
    area = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(dim=1)
    largest = int(area.argmax())
    alone = GroundTruth(truth.boxes[[largest]], truth.labels[[largest]], truth.difficult[[largest]])
    other = Batch(batch.images, (alone,), batch.metas)
    localizer.eval()
    for name, term in localizer.loss(batch).items():
        assert_close(term, localizer.loss(other)[name])


def test_images_with_several_objects_can_be_left_out():
    localizer = build(object_choice="single").eval()
    several, one = truths(3, 1)
    both = localizer.loss(image_batch(SIZE, (several, one)))
    batch = image_batch(SIZE, (several, one))
    alone = localizer.loss(Batch(batch.images[1:], (one,), batch.metas[1:]))
    for name, term in both.items():
        assert_close(term, alone[name])
    nothing = localizer.loss(image_batch(SIZE, (several,)))
    assert all(term.item() == 0 for term in nothing.values())


@pytest.mark.parametrize("kind", ["l2", "smooth_l1", "iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_the_box_loss_is_that_of_the_formula(kind, class_specific):
    localizer = build(box_loss=kind, class_specific=class_specific, box_weight=2.0).eval()
    (truth,) = truths(1)
    units = torch.full((NUM_CLASSES if class_specific else 1, 4), 0.3)
    row = int(truth.labels[0]) if class_specific else 0
    units[row] = torch.tensor([0.4, 0.45, 0.3, 0.2])
    set_boxes(localizer, units)
    box = truth.boxes[0] / 64
    target = torch.cat(((box[:2] + box[2:]) / 2, box[2:] - box[:2]))
    difference = (units[row] - target).abs()
    if kind == "l2":
        expected = (difference**2).sum() / 2
    elif kind == "smooth_l1":
        expected = torch.where(difference < 0.1, difference**2 / 0.2, difference - 0.05).sum()
    else:
        corners = torch.tensor([0.25, 0.35, 0.55, 0.55])
        expected = 1 - elementwise_box_iou(corners, box, kind)
    found = localizer.loss(image_batch(SIZE, (truth,)))["boxes"]
    assert_close(found, 2 * expected, rtol=1e-5, atol=1e-5)


def test_with_several_slots_the_rest_stand_for_nothing():
    localizer = build(num_objects=3)
    (truth,) = truths(2)
    targets = localizer._ordered_targets((truth, GroundTruth.empty()), torch.device("cpu"))
    assert targets.labels[0, 2] == NUM_CLASSES
    assert targets.has_object.tolist() == [[True, True, False], [False, False, False]]
    centers = targets.boxes[0, :2, 0] + targets.boxes[0, :2, 2]
    assert centers[0] <= centers[1]
    assert targets.labels[1].tolist() == [NUM_CLASSES] * 3


@pytest.mark.parametrize("assignment", ["left_to_right", "by_size", "hungarian"])
@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_any_number_of_objects_is_legal(assignment, count):
    localizer = build(num_objects=3, assignment=assignment)
    terms = localizer.loss(image_batch(SIZE, truths(count, 1)))
    assert all(term.isfinite() for term in terms.values())


def test_hungarian_slots_follow_the_predictions():
    localizer = build(num_objects=2, assignment="hungarian").eval()
    left, right = (4.0, 4.0, 20.0, 20.0), (40.0, 40.0, 60.0, 60.0)
    truth = GroundTruth(
        torch.tensor([left, right]), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool)
    )
    units = torch.tensor([[50, 50, 20, 20], [12, 12, 16, 16]]) / 64  # the right one first
    set_boxes(localizer, units)
    found = localizer.loss(image_batch(SIZE, (truth,)))["boxes"]
    assert_close(found, torch.tensor(0.0), atol=1e-6, rtol=0)
    in_order = build(num_objects=2, assignment="left_to_right").eval()
    set_boxes(in_order, units)
    assert in_order.loss(image_batch(SIZE, (truth,)))["boxes"] > 0.1


def test_detections_of_several_slots_are_suppressed_by_class():
    localizer = build(num_objects=3)
    set_boxes(localizer, [[0.3, 0.3, 0.4, 0.4], [0.31, 0.3, 0.4, 0.4], [0.8, 0.8, 0.2, 0.2]])
    logits = torch.full((3, NUM_CLASSES + 1), -20.0)
    logits[0, 1], logits[1, 1], logits[2, 2] = 5.0, 4.0, 5.0
    logits[1, NUM_CLASSES] = 3.0
    set_logits(localizer, logits)
    (found,) = localizer.detect(image_batch(SIZE, truths(0)))
    assert sorted(found.labels.tolist()) == [1, 2]


# --- phases --------------------------------------------------------------------------------------


def phases_of(localizer):
    plan = Plan({name: GradientSettings() for name in localizer.phase_names}, lambda _: NoBatches())
    return {phase.name: phase for phase in localizer.phases(plan)}


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("frozen", ["classify", "regress"]),
        ("finetune_all", ["classify", "regress", "finetune"]),
        ("joint", ["joint"]),
        ("regress", ["regress"]),
        ("none", []),
    ],
)
def test_the_recipes(recipe, names):
    assert list(phases_of(build(recipe=recipe))) == names


def step(phase, batch):
    phase.module.train()
    optimizer = torch.optim.SGD(phase.module.parameters(), lr=0.1)
    sum(phase.loss(batch).values()).backward()
    optimizer.step()


@pytest.mark.parametrize("attach", ["trunk", "head"])
def test_each_phase_trains_its_own_part_and_nothing_else(attach):
    localizer = build(recipe="finetune_all", attach=attach)
    phases = phases_of(localizer)
    batch = image_batch(SIZE, truths(1, 2))

    def changed_by(name):
        before = copy.deepcopy(localizer.state_dict())
        localizer.zero_grad()
        step(phases[name], batch)
        after = localizer.state_dict()
        changed = {key for key in after if not torch.equal(after[key], before[key])}
        return {key.removeprefix("backbone.").split(".")[0] for key in changed}

    localizer.train()  # as an earlier phase leaves it
    assert changed_by("classify") == {"trunk", "head", "classifier"}
    # neither weights nor running statistics of the trunk; behind the head, what lies before it too
    between = {"head", "classifier"} if attach == "head" else set()
    assert changed_by("regress") == {"regressor"} | between
    assert changed_by("finetune") == {"trunk", "head", "classifier", "regressor"}


@pytest.mark.parametrize("attach", ["trunk", "head"])
def test_the_gradient_of_the_regression_phase_ends_at_its_head(attach):
    localizer = build(attach=attach)
    sum(localizer.regression_loss(image_batch(SIZE, truths(1))).values()).backward()
    assert all(parameter.grad is not None for parameter in localizer.regressor.parameters())
    assert all(parameter.grad is None for parameter in localizer.backbone.parameters())


def test_a_map_of_fewer_channels():
    localizer = build(reduced_channels=6)
    first = localizer.regressor[0]
    assert (first.kernel_size, first.out_channels) == ((1, 1), 6)
    linear = [layer for layer in localizer.regressor if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [6 * 16, 16, 8]
    assert localizer.loss(image_batch(SIZE, truths(1)))["boxes"].isfinite()


def test_behind_the_head_there_is_no_map_to_reduce():
    with pytest.raises(DetectError, match="reduced_channels: there is no map behind the head"):
        build(attach="head", reduced_channels=6)


@pytest.mark.parametrize("make", [partial(build), partial(build, num_objects=3)])
def test_tiny_images_are_scaled_up(make):
    from detect.detectors import predict

    localizer = make()
    batch = image_batch(SIZE, truths(0), original_sizes=((1, 1),))
    (found,) = predict(localizer, batch)
    assert (found.boxes <= 1).all()
