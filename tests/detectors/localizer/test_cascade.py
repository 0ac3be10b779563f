from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.config import Config, resolve
from detect.detectors import Localizer
from detect.detectors.localizer.cascade import RefinementStage
from detect.errors import DetectError
from detect.experiment.model import load
from detect.experiment.training import train
from detect.settings import Settings
from detect.structures import GroundTruth
from detect.training import FitPhase, GradientSettings, Plan
from tests.contracts import NoBatches, image_batch, some_truth

SIZE = (64, 64)
NUM_JOINTS = 4


def build_stage(context=1.0):
    torch.manual_seed(0)
    stage = RefinementStage(create_backbone("tiny"), NUM_JOINTS, (0, 1), context).eval()
    stage.is_measured.fill_(True)
    return stage


def build(**options):
    torch.manual_seed(0)
    options = {
        "input_size": 64,
        "hidden_features": (16,),
        "num_joints": NUM_JOINTS,
        "num_stages": 3,
        "diameter_joints": (0, 1),
        **options,
    }
    return Localizer(create_backbone("tiny"), 2, **options).eval()


def labeled(visibility=(2.0, 2.0, 2.0, 2.0)):
    points = torch.tensor([[20.0, 20.0], [20.0, 40.0], [30.0, 30.0], [44.0, 12.0]])
    return torch.cat((points, torch.tensor(visibility)[:, None]), dim=1)[None]


def set_displacements(stage, displacements):
    with torch.no_grad():
        stage.regressor.weight.zero_()
        stage.regressor.bias.copy_(torch.tensor(displacements).flatten())


def test_the_square_is_as_large_as_the_torso_times_the_context():
    sides = build_stage(context=2.0).sides(labeled()[..., :2], SIZE)
    assert_close(sides, torch.tensor([40.0]))


def test_a_pose_that_is_a_point_has_a_square_still():
    stage = build_stage()
    joints = torch.full((1, NUM_JOINTS, 2), 10.0)
    assert_close(stage.sides(joints, SIZE), torch.tensor([0.05 * 64]))
    assert stage.refine(torch.rand(1, 3, *SIZE), joints).isfinite().all()


def test_each_joint_moves_by_its_own_displacement_of_its_own_square():
    stage = build_stage()
    displacements = [[0.1, 0.0], [0.0, -0.2], [0.5, 0.5], [-1.0, 0.25]]
    set_displacements(stage, displacements)
    joints = labeled()[..., :2]
    refined = stage.refine(torch.rand(1, 3, *SIZE), joints)
    assert_close(refined, joints + 20 * torch.tensor(displacements))


def test_a_square_shows_what_lies_around_its_joint():
    # a stage that reads the color of the middle: only the joint on the white spot sees it
    stage = build_stage()
    seen = []
    stage.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.zeros(2, 3, *SIZE)
    images[1, :, 27:33, 27:33] = 1.0  # around joint 2 of the second image
    stage.refine(images, labeled()[..., :2].expand(2, -1, -1))
    (crops,) = seen
    assert crops.shape == (2 * NUM_JOINTS, 3, 64, 64)
    middles = crops[:, :, 30:34, 30:34].mean(dim=(1, 2, 3))
    assert middles.round().tolist() == [0, 0, 0, 0, 0, 0, 1, 0]


def test_outside_the_image_a_square_has_the_mean_color():
    stage = build_stage()
    seen = []
    stage.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    joints = torch.tensor([[[-100.0, -100.0], [-100.0, -80.0], [500.0, 5.0], [32.0, 32.0]]])
    stage.refine(torch.ones(1, 3, *SIZE), joints)
    mean = stage.backbone.mean.flatten()
    assert_close(seen[0][0].mean(dim=(1, 2)), mean)
    assert_close(seen[0][2].mean(dim=(1, 2)), mean)
    assert_close(seen[0][3].mean(dim=(1, 2)), torch.ones(3))


def test_the_errors_are_those_of_the_stage_before_in_squares():
    stage = build_stage()
    truth = labeled().expand(6, -1, -1)
    errors = torch.randn(6, NUM_JOINTS, 2)
    found = truth[..., :2] + 20 * errors
    stage.measure_errors([(found[:4], truth[:4]), (found[4:], truth[4:])], 64)
    assert_close(stage.error_mean, errors.mean(dim=0), rtol=1e-4, atol=1e-6)
    assert_close(stage.error_std, errors.std(dim=0, correction=0), rtol=1e-4, atol=1e-6)


def test_joints_without_a_label_or_a_torso_are_neither_measured_nor_learned():
    stage = build_stage()
    truth = torch.cat((labeled((2.0, 1.0, 0.0, 2.0)), labeled((0.0, 2.0, 2.0, 2.0))))
    found = truth[..., :2] + torch.tensor([10.0, 0.0])
    stage.measure_errors([(found, truth)], 64)
    assert_close(stage.error_mean[:, 0], torch.tensor([0.5, 0.5, 0.0, 0.5]))
    assert_close(stage.error_std, torch.zeros(NUM_JOINTS, 2))
    set_displacements(stage, [[0.0, 0.0], [0.0, 0.0], [9.0, 9.0], [0.0, 0.0]])
    batch = image_batch(SIZE, (GroundTruth.empty(), GroundTruth.empty()))
    # what is left to say is the error itself, at three joints of the first image
    assert_close(stage.loss(batch, truth), torch.tensor(0.5**2 / 2))


def test_the_loss_falls_to_zero_when_the_errors_are_undone():
    stage = build_stage()
    stage.error_mean.copy_(torch.tensor([[0.1, 0.2], [-0.3, 0.0], [0.0, 0.4], [0.2, 0.2]]))
    batch = image_batch(SIZE, (GroundTruth.empty(),))
    set_displacements(stage, (-stage.error_mean).tolist())
    assert_close(stage.loss(batch, labeled()), torch.tensor(0.0))


def test_later_stages_stay_out_until_they_are_measured():
    localizer = build()
    set_displacements(localizer.stages[0], [[1.0, 1.0]] * NUM_JOINTS)
    batch = image_batch(SIZE, (GroundTruth.empty(),))
    before = localizer.detect(batch)[0].joints
    localizer.stages[0].is_measured.fill_(True)
    after = localizer.detect(batch)[0].joints
    side = localizer.stages[0].sides(before[:1], SIZE)
    assert_close(after, before + side)


def phases_of(localizer):
    settings = {name: GradientSettings() for name in localizer.phase_names}
    return localizer.phases(Plan(settings, lambda _: NoBatches()))


def test_each_later_stage_is_measured_and_then_trained():
    phases = phases_of(build(recipe="joint"))
    assert [phase.name for phase in phases] == [
        "joint",
        "measure_errors_1",
        "refine_2",
        "measure_errors_2",
        "refine_3",
    ]
    assert isinstance(phases[1], FitPhase)
    assert phases_of(build(recipe="none")) == []


def test_a_stage_learns_and_no_other_part():
    localizer = build()
    localizer.stages[0].error_std.fill_(0.1)
    truth = some_truth(SIZE, 2, 1)
    truth = GroundTruth(truth.boxes, truth.labels, truth.difficult, labeled())
    phase = phases_of(localizer)[3]
    assert phase.name == "refine_2"
    phase.loss(image_batch(SIZE, (truth,)))["joints"].backward()
    learned = {name for name, p in localizer.named_parameters() if p.grad is not None}
    assert learned == {f"stages.0.{name}" for name, _ in localizer.stages[0].named_parameters()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_stages": 4}, "num_stages: expected 1 to 3, found 4"),
        ({"num_joints": 0}, "3 stages refine joints, and detector.num_joints is 0"),
        ({"diameter_joints": None}, "diameter_joints: expected two joints .* found None"),
        ({"diameter_joints": (1, 1)}, r"numbers from 0 to 3, .* found \[1, 1\]"),
        ({"diameter_joints": (0, 4)}, r"found \[0, 4\]"),
        ({"stage_context": 0.0}, "stage_context: expected more than 0, found 0"),
    ],
)
def test_settings_that_make_no_cascade(options, message):
    with pytest.raises(DetectError, match=message):
        build(**options)


def test_a_cascade_is_trained_stage_by_stage_and_resumes(tmp_path: Path):
    values = {
        "data": {
            "kind": "figures",
            "root": str(tmp_path / "figures"),
            "num_images": 16,
            "image_size": 64,
            "num_workers": 0,
        },
        "detector": {
            "name": "localizer",
            "input_size": 64,
            "hidden_features": [16],
            "num_joints": 14,
            "num_stages": 2,
            "diameter_joints": [9, 2],
            "recipe": "joint",
        },
        "training": {"epochs": 1, "batch_size": 4, "optimizer": "adamw"},
    }
    config = resolve(Settings(values, {}), "test")
    assert isinstance(config, Config)
    train(config, tmp_path / "run", device="cpu", console=Console(quiet=True))
    detector = load(tmp_path / "run", "cpu").detector
    assert bool(detector.stages[0].is_measured)
    assert bool((detector.stages[0].error_std > 0).any())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert any('"refine_2"' in line for line in lines)
    # all phases are finished: going on changes nothing
    train(config, tmp_path / "run", resume=True, device="cpu", console=Console(quiet=True))
    again = load(tmp_path / "run", "cpu").detector.state_dict()
    for name, tensor in detector.state_dict().items():
        assert_close(again[name], tensor, rtol=0, atol=0)
