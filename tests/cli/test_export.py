import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.cli import main
from detect.config import resolve
from detect.experiment.model import build_detector
from detect.settings import Settings
from detect.training import save_checkpoint


@pytest.fixture
def run(tmp_path):
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


def export(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["export-weights", *map(str, arguments)])
    return caught.value.code


def test_the_weights_of_a_run_are_exported(tmp_path, run):
    folder, detector = run
    out = tmp_path / "all.safetensors"
    assert export(folder, "--out", out) == 0
    assert_close(load_file(out), dict(detector.state_dict()), rtol=0, atol=0)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["class_names"]) == ["cat", "dög"]
    assert json.loads(metadata["config"])["detector"]["name"] == "yolo"
    assert metadata["kind"] == "detector"


def test_a_backbone_starts_from_what_was_exported(tmp_path, run):
    folder, detector = run
    for arguments in ((), ("--backbone",)):
        out = tmp_path / "weights.safetensors"
        assert export(folder, "--out", out, *arguments) == 0
        torch.manual_seed(99)
        backbone = create_backbone("tiny", str(out))
        backbone.drop_head()
        assert_close(backbone.state_dict(), detector.backbone.state_dict(), rtol=0, atol=0)


def test_what_cannot_be_exported_is_said(tmp_path, run, capsys):
    folder, _ = run
    assert export(folder, "--out", tmp_path / "a.pt") == 2
    assert "ends with .safetensors" in capsys.readouterr().err
    assert export(tmp_path, "--out", tmp_path / "a.safetensors") == 2
    assert "a folder without checkpoints" in capsys.readouterr().err
    save_checkpoint(tmp_path / "other.pt", {"weights": {}})
    assert export(tmp_path / "other.pt", "--out", tmp_path / "a.safetensors") == 2
    assert "found a checkpoint without weights" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))
