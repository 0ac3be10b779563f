"""What joins data, detectors and evaluators: other kinds of data, and weights to start from."""

import json

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from detect.cli.train import run_training
from detect.config import PretrainConfig, resolve, resolve_experiment
from detect.errors import DetectError
from detect.experiment.model import build_detector, load, take_weights
from detect.experiment.pretraining import pretrain
from detect.experiment.training import train
from detect.settings import Settings
from detect.training import load_checkpoint, save_checkpoint

TRAINING = {"epochs": 1, "batch_size": 4}
LOCALIZER = {"name": "localizer", "input_size": 64, "hidden_features": [8]}


def config_of(data, detector, **sections):
    values = {"data": data, "detector": detector, "training": TRAINING, **sections}
    return resolve(Settings(values, {}), "this test")


def shapes(root, **changes):
    data = {"kind": "shapes", "root": str(root / "shapes"), "num_images": 20, "image_size": 64}
    return {**data, "num_workers": 0, **changes}


def test_stick_figures_from_drawing_to_pck(tmp_path):
    data = {"kind": "figures", "root": str(tmp_path / "figures"), "num_images": 20,
            "image_size": 64, "num_workers": 0}  # fmt: skip
    config = config_of(data, {**LOCALIZER, "num_joints": 14, "recipe": "finetune_all"})
    evaluation = train(config, tmp_path / "run", device="cpu")
    assert set(evaluation.reports) == {"voc", "localization", "pose"}
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert {"map_area", "localization", "pose"} <= set(report)
    assert set(report["pose"]["pck"]) == {"0.05", "0.1", "0.2", "0.5"}
    assert len(evaluation.tables()) == 3
    model = load(tmp_path / "run", "cpu")
    images = sorted((tmp_path / "figures" / "images").iterdir())
    found = model.predict(images[0], score_threshold=0)
    assert found.joints.shape == (1, 14, 2)


def test_persons_can_be_cut_out(tmp_path):
    data = {"kind": "figures", "root": str(tmp_path / "figures"), "num_images": 12,
            "image_size": 64, "num_workers": 0, "person_crops": 0.2}  # fmt: skip
    evaluation = train(
        config_of(data, {**LOCALIZER, "num_joints": 14, "recipe": "joint"}),
        tmp_path / "run",
        device="cpu",
    )
    assert evaluation.reports["pose"].num_persons > 0


def test_figures_are_no_data_for_several_roots(tmp_path):
    data = {"kind": "figures", "root": [str(tmp_path / "a"), str(tmp_path / "b")]}
    with pytest.raises(DetectError, match="of kind 'figures' has one folder, found 2"):
        train(config_of(data, LOCALIZER), tmp_path / "run", device="cpu")


def test_a_run_without_training_is_its_initial_weights(tmp_path):
    localizer = config_of(shapes(tmp_path, max_objects=1), {**LOCALIZER, "recipe": "joint"})
    train(localizer, tmp_path / "localizer", device="cpu")
    window = config_of(
        shapes(tmp_path, max_objects=1),
        {"name": "sliding_window", "input_size": 64, "scales": [1.0, 1.3], "recipe": "none",
         "hidden_features": [8], "background": False},
        initial_weights=str(tmp_path / "localizer"),
    )  # fmt: skip
    evaluation = train(window, tmp_path / "window", device="cpu")
    assert evaluation is not None
    source, taken = (
        load_checkpoint(tmp_path / name / "checkpoints" / "best.pt")["detector"]
        for name in ("localizer", "window")
    )
    # what a sliding window counts in training is its own
    assert taken.keys() - source.keys() == {"num_windows_shown", "num_objects_shown"}
    for key, value in source.items():
        assert_close(taken[key], value, rtol=0, atol=0)


def test_a_classifier_starts_a_localizer_with_its_last_layer(tmp_path):
    values = {"data": shapes(tmp_path), "backbone": {"name": "tiny"}, "training": TRAINING}
    pretraining = resolve_experiment(Settings(values, {}), "this test", PretrainConfig)
    pretrain(pretraining, tmp_path / "classifier")
    detector = build_detector(config_of(shapes(tmp_path), LOCALIZER), 6)
    lines = take_weights(detector, tmp_path / "classifier")
    saved = load_checkpoint(tmp_path / "classifier" / "checkpoints" / "best.pt")["classifier"]
    assert_close(detector.classifier.weight, saved["classifier.weight"])
    assert_close(detector.backbone.trunk[0][0].weight, saved["backbone.trunk.0.0.weight"])
    assert f"{len(saved)} of {len(detector.state_dict())} tensors taken" in lines[0]
    assert "keep their random weights: regressor.1, regressor.3" in lines[1]


def test_initial_weights_that_do_not_fit_are_refused(tmp_path):
    save_checkpoint(tmp_path / "best.pt", {"detector": {"other.weight": torch.zeros(3)}})
    detector = build_detector(config_of(shapes(tmp_path), LOCALIZER), 6)
    with pytest.raises(DetectError, match=r"best\.pt: initial_weights: .*found none that fits"):
        take_weights(detector, tmp_path / "best.pt")


def test_a_run_that_trains_nothing_needs_no_curves(tmp_path):
    detector = {"name": "sliding_window", "input_size": 64, "scales": [1.0], "recipe": "none",
                "hidden_features": [8]}  # fmt: skip
    config = {"data": shapes(tmp_path), "detector": detector, "training": TRAINING}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    run_training(
        tmp_path / "config.yaml", out=tmp_path / "run", device="cpu", console=Console(quiet=True)
    )
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert not (tmp_path / "run" / "curves.png").exists()
