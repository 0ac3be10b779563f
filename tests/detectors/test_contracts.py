"""Every detector with every backbone."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from detect.backbones import BACKBONES, build_backbone
from detect.detectors import DETECTORS, YOLO, Detector
from tests import contracts

NUM_CLASSES = 3
# twice the coarsest stride, so that no map of a backbone shrinks to one position under BatchNorm
SIZES = {"tiny": 64, "squeezenet1_0": 96, "vgg16": 64, "resnet18": 64, "mobilenet_v2": 64}

BUILDERS: dict[str, Callable[..., Detector]] = {
    "yolo_paper": partial(YOLO, grid_size=3, hidden_features=16),
    "yolo_paper_convolutional": partial(YOLO, head="convolutional", hidden_features=16),
    "yolo_modern": partial(YOLO, head="convolutional", variant="modern", hidden_features=16),
    "yolo_modern_fully_connected": partial(YOLO, variant="modern", hidden_features=16),
}


def build(kind: str, backbone: str, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return BUILDERS[kind](
        build_backbone(backbone), NUM_CLASSES, input_size=SIZES.get(backbone, 128)
    )


# A quarter to half a gigabyte of weights each: building them is most of the time of their tests.
LARGE = ("vgg16", "yolo_darknet", "yolo_darknet_bn", "yolo_darknet_fast", "yolo_darknet_fast_bn")
PAIRS = [
    pytest.param((kind, name), id=f"{kind}-{name}", marks=[pytest.mark.slow] * (name in LARGE))
    for name in BACKBONES
    for kind in BUILDERS
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def detector(pair: tuple[str, str]) -> Detector:
    return build(*pair)


def test_every_detector_is_swept():
    assert {kind.split("_")[0] for kind in BUILDERS} == set(DETECTORS)


def test_loss_is_finite_and_reaches_every_parameter(detector: Detector):
    contracts.check_loss_is_finite_and_reaches_every_parameter(detector)


def test_pictures_without_objects(detector: Detector):
    contracts.check_pictures_without_objects(detector)


def test_detections_are_legal(detector: Detector):
    contracts.check_detections_are_legal(detector)


def test_batch_equals_single_pictures(detector: Detector):
    contracts.check_batch_equals_single_pictures(detector)


def test_mode_does_not_change_detections(detector: Detector):
    contracts.check_mode_does_not_change_detections(detector)


def test_save_and_load(detector: Detector, pair: tuple[str, str]):
    contracts.check_save_and_load(detector, build(*pair, seed=1))
