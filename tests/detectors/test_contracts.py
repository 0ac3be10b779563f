"""Every detector with every backbone."""

import copy
from collections.abc import Callable
from functools import lru_cache, partial

import pytest
import torch
from torch import nn

from detect.backbones import BACKBONES, Backbone, create_backbone
from detect.detectors import (
    DETECTORS,
    RCNN,
    YOLO,
    Detector,
    FasterRCNN,
    FastRCNN,
    Localizer,
    SlidingWindow,
)
from tests import contracts

NUM_CLASSES = 3
# The side of the images, where it is not 64. It is twice the trunk's stride, so that no map
# shrinks to one position under BatchNorm; a trunk without padding wants more.
SIZES = {"yolo_darknet": 128, "squeezenet1_0": 96, "alexnet_owt": 64, "alexnet": 99, "zfnet": 96}

# Untrained, a network gives all anchors nearly the same score: in a batch of another size, rounding
# would let others survive.
UNSUPPRESSED = {
    "test_proposals": (10_000, 10_000),
    "proposal_iou": 1.0,
    "iou_threshold": 1.0,
    "max_detections": 10_000,
    "score_threshold": 0.0,
}

BUILDERS: dict[str, Callable[..., Detector]] = {
    "yolo_paper": partial(YOLO, grid_size=3, hidden_features=16),
    "yolo_paper_convolutional": partial(YOLO, head="convolutional", hidden_features=16),
    # it begins with so little objectness that the default threshold may leave nothing
    "yolo_modern": partial(
        YOLO, head="convolutional", variant="modern", hidden_features=16, score_threshold=0.001
    ),
    "yolo_modern_fully_connected": partial(
        YOLO, variant="modern", hidden_features=16, score_threshold=0.001
    ),
    "localizer": partial(Localizer, hidden_features=(16,)),
    "localizer_head_specific": partial(Localizer, attach="head", class_specific=True),
    "localizer_hungarian": partial(
        Localizer, hidden_features=(16,), num_objects=3, assignment="hungarian", box_loss="giou"
    ),
    # a window is as large as the backbone was designed for, whatever the image
    "sliding_window": partial(
        SlidingWindow,
        scales=(1.0,),
        hidden_features=(16,),
        positive_iou=1e-6,
        negative_iou=1e-6,
    ),
    "sliding_window_head": partial(
        SlidingWindow,
        scales=(1.0,),
        attach="head",
        offsets=2,
        combine="nms",
        positive_iou=1e-6,
        negative_iou=1e-6,
    ),
    # a region is warped to as many pixels as the backbone was designed for
    "fast_rcnn": partial(
        FastRCNN,
        shorter_side=None,
        proposals="random-boxes",
        proposal_options={"count": 8},
        regions_per_image=8,
        background_iou=(0.0, 0.5),
    ),
    "fast_rcnn_scales": partial(
        FastRCNN,
        shorter_side=None,
        proposals="random-boxes",
        proposal_options={"count": 8},
        regions_per_image=8,
        background_iou=(0.0, 0.5),
        scales=(1.0, 1.5),
        head="mlp",
        hidden_features=(16,),
        pooling="align",
    ),
    "faster_rcnn": partial(
        FasterRCNN,
        shorter_side=None,
        rpn_channels=16,
        anchor_sizes=(16, 32),
        train_proposals=(20, 8),
        **UNSUPPRESSED,
        regions_per_image=8,
    ),
    "faster_rcnn_fpn": partial(
        FasterRCNN,
        shorter_side=None,
        neck="fpn",
        neck_channels=32,
        head="mlp",
        hidden_features=(16,),
        pooling="align",
        train_proposals=(20, 8),
        **UNSUPPRESSED,
        regions_per_image=8,
        crossing_anchors=True,
    ),
    "rcnn": partial(
        RCNN,
        proposals="random-boxes",
        proposal_options={"count": 3},
        context=4,
        windows_per_step=4,
    ),
}

# One of each family of networks that a library has, besides our own.
FAMILIES = ["torchvision/mobilenet_v3_small", "timm/resnet10t"]
# Every detector is swept over every backbone, in the forms that take different things from it: the
# last map, a map at each stride. Its other forms are swept over the small backbones.
FORMS = (
    "yolo_paper",
    "yolo_modern",
    "localizer",
    "sliding_window",
    "rcnn",
    "faster_rcnn",
)
SMALL = ("lenet", "mobilenet_v2", "resnet18", "squeezenet1_0", "tiny")
# Swept in the plain run, in one form; what is neither here nor small is slow.
MEDIUM = ("googlenet", "plain18", "resnet34", "yolo_darknet_fast", *FAMILIES)


def is_quick(kind: str, backbone: str) -> bool:
    if kind.startswith(("sliding_window", "rcnn", "fast_rcnn", "faster_rcnn")):
        return backbone in ("lenet", "tiny")
    if kind.startswith("localizer") and kind != "localizer":
        return backbone in ("lenet", "tiny")
    return backbone in SMALL or (kind == "yolo_modern" and backbone in MEDIUM)


PAIRS = [
    pytest.param(
        (kind, name),
        id=f"{kind}-{name}",
        # with --dist loadgroup, the tests of a backbone stay together: building it takes long
        marks=[pytest.mark.xdist_group(name)] + [pytest.mark.slow] * (not is_quick(kind, name)),
    )
    for name in [*BACKBONES, *FAMILIES]
    for kind in BUILDERS
    if kind in FORMS or name in SMALL
]


@lru_cache(maxsize=1)  # up to half a gigabyte, and drawing the weights is most of the time
def drawn_backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    backbone = create_backbone(name)
    for norm in backbone.modules():
        # timm begins the last norm of a block at zero, which lets no gradient through at first
        if isinstance(norm, nn.BatchNorm2d) and not norm.weight.any():
            nn.init.ones_(norm.weight)
    spread_outputs(backbone)
    return backbone


@torch.no_grad()
def spread_outputs(backbone: Backbone) -> None:
    """Make a drawn network tell images apart: deep ones shrink what they see to a constant."""

    def scale(layer: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        spread = output.std()
        layer.weight /= spread
        return output / spread

    layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(scale) for layer in layers]
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics are those of this run
    noise = torch.rand(4, 3, *[max(backbone.image_size, 64)] * 2)
    backbone.train()
    backbone.head_features(backbone(noise))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.momentum = 0.1


def build(kind: str, backbone: str) -> Detector:
    side = next((size for start, size in SIZES.items() if backbone.startswith(start)), 64)
    options = {}
    if kind == "faster_rcnn" and backbone not in SMALL:
        # regions of C4 would go through half of a large network, each at its full resolution
        options["level"] = drawn_backbone(backbone).levels[-1]
    own = copy.deepcopy(drawn_backbone(backbone))
    torch.manual_seed(1)  # after the backbone, which draws only when it is not cached
    return BUILDERS[kind](own, NUM_CLASSES, input_size=side, **options)


@torch.no_grad()
def build_with_other_weights(kind: str, backbone: str) -> Detector:
    detector = build(kind, backbone)
    for parameter in detector.parameters():
        parameter.mul_(0.5).add_(0.1)
    return detector


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    if request.param[1].startswith("timm/"):
        pytest.importorskip("timm")
    return request.param


@pytest.fixture(scope="module")
def detector(pair: tuple[str, str]) -> Detector:
    return build(*pair)


def skip_large(pair: tuple[str, str]) -> None:
    """What does not depend on the backbone is checked on the small ones."""
    if pair[1] not in SMALL:
        pytest.skip("does not depend on the backbone: checked on the small ones")


def test_every_detector_is_swept():
    for name in DETECTORS:
        assert any(kind.startswith(name) for kind in BUILDERS), name


def test_loss_is_finite_and_reaches_every_parameter(detector: Detector):
    contracts.check_loss_is_finite_and_reaches_every_parameter(detector)


def test_images_without_objects(detector: Detector, pair: tuple[str, str]):
    skip_large(pair)
    contracts.check_images_without_objects(detector)


def test_detections_are_legal(detector: Detector, pair: tuple[str, str]):
    contracts.check_detections_are_legal(detector, finds=is_quick(*pair))


def test_batch_equals_single_images(detector: Detector, pair: tuple[str, str]):
    contracts.check_batch_equals_single_images(detector, finds=is_quick(*pair))


def test_mode_does_not_change_detections(detector: Detector, pair: tuple[str, str]):
    skip_large(pair)
    contracts.check_mode_does_not_change_detections(detector)


def test_save_and_load(detector: Detector, pair: tuple[str, str]):
    skip_large(pair)
    contracts.check_save_and_load(detector, build_with_other_weights(*pair))
