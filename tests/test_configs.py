"""Every config of the repository is valid and builds its detector."""

from pathlib import Path

import pytest

from detect.cli.demo import CONFIG as DEMO_CONFIG
from detect.config import PretrainConfig, load_config, load_experiment
from detect.data import VOC_CLASSES
from detect.experiment.model import build_detector
from detect.experiment.pretraining import build_classifier
from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
PRETRAINING = [path for path in CONFIGS if path.stem.startswith("pretrain_")]
COMPARED = sorted((REPOSITORY / "configs" / "compare").glob("*.yaml"))
DETECTION = [*(path for path in CONFIGS if path not in PRETRAINING), *COMPARED]


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: path.stem)
def test_pretraining_config_builds(path: Path):
    config, _ = load_experiment(path, [], PretrainConfig)
    assert build_classifier(config, 7).num_classes == 7


@pytest.mark.parametrize("path", DETECTION, ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_config_builds(path: Path):
    config, _ = load_config(path)
    classes = config.data.classes if isinstance(config.data.classes, list) else VOC_CLASSES
    detector = build_detector(config.without_weights(), len(classes))
    assert detector.num_classes == len(classes)
    for phase in detector.phase_names:
        assert config.settings_of(phase).epochs > 0


def test_the_demo_is_the_shapes_config():
    assert (
        load_config(DEMO_CONFIG)[0] == load_config(REPOSITORY / "configs/yolo_tiny_shapes.yaml")[0]
    )


def test_the_compared_families_have_an_equal_budget():
    configs = [load_config(path)[0] for path in COMPARED]
    names = {config.detector["name"] for config in configs}
    assert names == {"sliding_window", "rcnn", "fast_rcnn", "faster_rcnn", "yolo"}
    for config in configs:
        assert (config.data, config.backbone) == (configs[0].data, configs[0].backbone)
        own = {**config.training, "learning_rate": 0}
        assert own == {**configs[0].training, "learning_rate": 0}


def test_yolo_voc_config_is_the_papers_recipe():
    config, _ = load_config(REPOSITORY / "configs/yolo_darknet_voc0712.yaml")
    settings = config.settings_of("train")
    assert (settings.epochs, settings.batch_size) == (135, 64)
    assert (settings.momentum, settings.weight_decay) == (0.9, 0.0005)
    assert (settings.learning_rate, settings.milestones) == (0.01, (75, 105))
