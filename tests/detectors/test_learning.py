"""Each detector learns eight drawn pictures by heart, through the public path."""

from pathlib import Path

import pytest

from detect.config import Settings, resolve
from detect.data import draw_shapes
from detect.experiment import load, train

TRAINING = {
    "epochs": 150,
    "batch_size": 8,
    "optimizer": "adamw",
    "learning_rate": 0.004,
    "schedule": "one_cycle",
    "evaluate_every": 150,
    "log_interval": 50,
}
DETECTORS = {
    "yolo modern": {
        "variant": "modern",
        "head": "convolutional",
        "grid_stride": 8,
        "hidden_features": 32,
    },
    "yolo paper": {"grid_size": 8, "hidden_features": 256, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def eight_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    draw_shapes(folder, num_images=10, seed=1, image_size=(96, 96), splits=(8, 1, 1))
    return folder


@pytest.mark.parametrize("options", DETECTORS.values(), ids=DETECTORS)
def test_learns_eight_pictures_by_heart(options, eight_pictures: Path, tmp_path: Path):
    data = {
        "root": str(eight_pictures),
        "train_split": "train",
        "val_split": "train",
        "test_split": "train",
        "classes": ["circle", "square", "triangle", "star", "cross", "ring"],
        "augmentation": None,
        "num_workers": 0,
    }
    detector = {"name": "yolo", "input_size": 96, **options}
    config = resolve(
        Settings({"data": data, "detector": detector, "training": TRAINING}, {}), "this test"
    )
    report = train(config, tmp_path / "run", device="cpu")
    assert report is not None
    assert report.map_area >= 0.9
    assert load(tmp_path / "run", "cpu").class_names == tuple(data["classes"])
