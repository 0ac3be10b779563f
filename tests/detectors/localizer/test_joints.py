import pytest
import torch
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.detectors import Localizer, predict
from detect.errors import DetectError
from detect.structures import Batch, GroundTruth
from tests.contracts import image_batch, some_truth

SIZE = (64, 64)
NUM_JOINTS = 5


def build(**options):
    torch.manual_seed(0)
    options = {"input_size": 64, "hidden_features": (16,), "num_joints": NUM_JOINTS, **options}
    return Localizer(create_backbone("tiny"), 2, **options).eval()


def truth_with(joints):
    truth = some_truth(SIZE, 2, len(joints))
    return GroundTruth(truth.boxes, truth.labels, truth.difficult, torch.tensor(joints))


def set_outputs(localizer, box, points):
    with torch.no_grad():
        last = localizer.regressor[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([*box, *(n for point in points for n in point)]))


POINTS = [(0.25, 0.5), (0.5, 0.5), (1.25, -0.5), (0.1, 0.9), (0.75, 0.25)]
BOX = (0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize("attach", ["trunk", "head"])
def test_joints_are_shares_of_the_input(attach):
    localizer = build(attach=attach)
    set_outputs(localizer, BOX, POINTS)
    batch = image_batch(SIZE, (GroundTruth.empty(),), original_sizes=((32, 128),))
    (found,) = localizer.detect(batch)
    assert found.joints.shape == (len(found), NUM_JOINTS, 2)
    assert_close(found.joints[0], torch.tensor(POINTS) * 64)
    (restored,) = predict(localizer, batch)
    assert_close(restored.joints[0], torch.tensor(POINTS) * torch.tensor([128.0, 32.0]))


def test_the_loss_is_half_the_squared_distance_of_labeled_joints():
    localizer = build(joint_weight=3.0)
    set_outputs(localizer, BOX, POINTS)
    joints = [[[16.0, 35.2, 2], [32, 32, 1], [0, 0, 0], [6.4, 57.6, 2], [48, 22.4, 1]]]
    terms = localizer.loss(image_batch(SIZE, (truth_with(joints),)))
    expected = 3 * (0.05**2 / 2 + 0.1**2 / 2) / 4  # four are labeled
    assert_close(terms["joints"], torch.tensor(expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("visibility", [0.0, 1.0])
def test_no_visible_joint(visibility):
    localizer = build()
    joints = [[[10.0, 10.0, visibility]] * NUM_JOINTS]
    terms = localizer.loss(image_batch(SIZE, (truth_with(joints), GroundTruth.empty())))
    assert all(term.isfinite() for term in terms.values())
    assert (float(terms["joints"].detach()) > 0) == (visibility > 0)


def test_the_joints_are_those_of_the_largest_object():
    localizer = build()
    joints = [[[float(n), 20.0, 2.0]] * NUM_JOINTS for n in range(3)]
    truth = truth_with(joints)
    largest = int((truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(dim=1).argmax())
    targets = localizer._ordered_targets((truth,), torch.device("cpu"))
    assert_close(targets.joints[0, :, 0], torch.full((NUM_JOINTS,), float(largest)))


def test_data_without_joints_is_refused():
    batch = image_batch(SIZE, (some_truth(SIZE, 2, 1),))
    with pytest.raises(DetectError, match="expected data with 5 joints an object, found none"):
        build().loss(batch)


def test_another_number_of_joints_is_refused():
    batch = image_batch(SIZE, (truth_with([[[1.0, 1.0, 2.0]] * 3]),))
    with pytest.raises(DetectError, match="5 joints an object, found 3"):
        build().loss(batch)


def test_joints_of_several_objects_are_refused():
    with pytest.raises(DetectError, match="joints are of one object an image"):
        build(num_objects=2)


def test_the_regression_phase_learns_joints():
    localizer = build()
    truth = truth_with([[[10.0, 20.0, 2.0]] * NUM_JOINTS])
    batch = image_batch(SIZE, (truth,))
    terms = localizer.regression_loss(Batch(batch.images, batch.truths, batch.metas))
    assert set(terms) == {"boxes", "joints"}
    terms["joints"].backward()
    gradient = localizer.regressor[-1].bias.grad
    assert (gradient[:4] == 0).all()
    assert (gradient[4:] != 0).all()
