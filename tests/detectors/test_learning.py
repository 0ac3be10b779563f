"""Each detector overfits eight drawn images, through the public path."""

from pathlib import Path

import pytest

from detect.config import resolve
from detect.data import draw_shapes
from detect.experiment.model import load
from detect.experiment.training import train
from detect.settings import Settings

TRAINING = {
    "epochs": 150,
    "batch_size": 8,
    "optimizer": "adamw",
    "learning_rate": 0.004,
    "schedule": "one_cycle",
    "evaluate_every": 150,
    "log_interval": 50,
}
REGIONS = {
    "shorter_side": 96,
    "level": "C3",
    "pooling": "align",
    "head": "mlp",
    "hidden_features": [128],
    "region_size": 5,
    "regions_per_image": 64,
    "iou_threshold": 0.5,
}
DETECTORS = {
    "yolo modern": {
        "name": "yolo",
        "variant": "modern",
        "head": "convolutional",
        "grid_stride": 8,
        "hidden_features": 32,
    },
    "yolo paper": {"name": "yolo", "grid_size": 8, "hidden_features": 256, "dropout": 0.0},
    "localizer": {
        "name": "localizer",
        "recipe": "joint",
        "hidden_features": [64],
        "box_weight": 20.0,
    },
    "sliding window": {
        "name": "sliding_window",
        "scales": [1.2, 1.6, 2.1, 2.8, 3.6],
        "scales_per_step": 2,
        "hidden_features": [64],
        "positive_iou": 0.4,
        "box_weight": 5.0,
    },
    "fast rcnn": {
        "name": "fast_rcnn",
        "proposal_options": {"min_size": 8},
        **REGIONS,
    },
    "faster rcnn": {
        "name": "faster_rcnn",
        "anchor_sizes": [16, 28, 48],
        "rpn_channels": 64,
        "train_proposals": [400, 100],
        "test_proposals": [400, 50],
        **REGIONS,
    },
    "rcnn": {
        "name": "rcnn",
        "proposal_options": {"min_size": 8},
        "context": 8,
        "svm_cost": 1.0,  # of one class there is a single object
    },
}

# The others learn in the slow run: they look at each image at several sizes, region by region, or
# with the loss of an earlier paper. That each finds something, and in its own image, the contracts
# of all detectors hold.
QUICK = ("yolo modern", "localizer")


@pytest.fixture(scope="module")
def eight_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, max_objects in (("one", 1), ("several", 6)):
        draw_shapes(
            folder / name,
            num_images=10,
            seed=1,
            image_size=(96, 96),
            splits=(8, 1, 1),
            max_objects=max_objects,
        )
    return folder


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name, options in DETECTORS.items()
    ],
)
def test_overfits_eight_images(options, eight_images: Path, tmp_path: Path):
    data = {
        # a localizer names one object an image
        "root": str(eight_images / ("one" if options["name"] == "localizer" else "several")),
        "train_split": "train",
        "val_split": "train",
        "test_split": "train",
        "classes": ["circle", "square", "triangle", "star", "cross", "ring"],
        "augmentation": None,
        "num_workers": 0,
        "cache": str(tmp_path / "cache"),
    }
    detector = {"input_size": 96, **options}
    config = resolve(
        Settings({"data": data, "detector": detector, "training": TRAINING}, {}), "this test"
    )
    evaluation = train(config, tmp_path / "run", device="cpu")
    assert evaluation is not None
    assert evaluation.report.map_area >= 0.9
    assert load(tmp_path / "run", "cpu").class_names == tuple(data["classes"])
