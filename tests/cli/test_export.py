import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.config import resolve
from detect.experiment.model import build_detector
from detect.settings import Settings
from detect.training import save_checkpoint
from tests.cli.conftest import run


@pytest.fixture
def exported(tmp_path):
    values = {"backbone": {"name": "tiny"}, "detector": {"name": "yolo", "input_size": 64}}
    config = resolve(Settings(values, {}), "test")
    detector = build_detector(config, 2)
    content = {
        "config": config.as_dict(),
        "class_names": ["cat", "dög"],
        "detector": detector.state_dict(),
    }
    save_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt", content)
    return tmp_path / "run", detector


def export(*arguments, status=0):
    return run("export-weights", *arguments, status=status)


def test_the_weights_of_a_run_are_exported(tmp_path, exported):
    folder, detector = exported
    out = tmp_path / "all.safetensors"
    export(folder, "--out", out)
    assert_close(load_file(out), dict(detector.state_dict()), rtol=0, atol=0)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["class_names"]) == ["cat", "dög"]
    assert json.loads(metadata["config"])["detector"]["name"] == "yolo"
    assert metadata["kind"] == "detector"


def test_a_backbone_starts_from_what_was_exported(tmp_path, exported):
    folder, detector = exported
    for arguments in ((), ("--backbone",)):
        out = tmp_path / "weights.safetensors"
        export(folder, "--out", out, *arguments)
        torch.manual_seed(99)
        backbone = create_backbone("tiny", str(out))
        backbone.drop_head()
        assert_close(backbone.state_dict(), detector.backbone.state_dict(), rtol=0, atol=0)


def test_what_cannot_be_exported_is_said(tmp_path, exported):
    folder, _ = exported
    assert "ends with .safetensors" in export(folder, "--out", tmp_path / "a.pt", status=2)
    out = tmp_path / "a.safetensors"
    assert "a folder without checkpoints" in export(tmp_path, "--out", out, status=2)
    other = tmp_path / "other.pt"
    save_checkpoint(other, {"weights": {}})
    assert "found a checkpoint without weights" in export(other, "--out", out, status=2)
    assert not list(tmp_path.glob("*.safetensors"))
