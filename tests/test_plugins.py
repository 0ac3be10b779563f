"""A backbone from outside the package: one file with one registration."""

import json
import os
import subprocess
import sys

import pytest

from detect.errors import DetectError
from detect.plugins import load_plugins
from tests.conftest import REPOSITORY

FILE = '''
"""A backbone of a user."""

from torch import nn

from detect.backbones import BACKBONES, Backbone


@BACKBONES.register("three_layers")
def three_layers() -> Backbone:
    trunk = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
    )
    head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 4 * 4, 24), nn.ReLU())
    return Backbone(trunk, head, image_size=64, num_published_classes=0)
'''

CONFIG = """
data: {kind: shapes, root: shapes, num_images: 20, image_size: 64, num_workers: 0}
backbone: {name: three_layers}
detector: {name: yolo, variant: modern, head: convolutional, input_size: 64, hidden_features: 8}
training: {epochs: 1, batch_size: 4}
"""


def run(folder, monkeypatch, *arguments, plugins="mine.py"):
    monkeypatch.setenv("DETECT_PLUGINS", plugins)
    return subprocess.run(
        [sys.executable, "-P", "-m", "detect", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_it_is_listed_and_trains_a_detector(folder, monkeypatch):
    table = run(folder, monkeypatch, "backbones", "three_layers", "--json", "layers.json")
    assert table.returncode == 0, table.stderr
    layers = json.loads((folder / "layers.json").read_text())
    assert [layer["kernel"] for layer in layers if layer["kernel"]] == [[3, 3]] * 3
    assert sum(layer["parameters"] for layer in layers) == 224 + 1168 + 4640 + 12312
    trained = run(folder, monkeypatch, "train", "config.yaml", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    found = run(folder, monkeypatch, "infer", "run", "shapes/JPEGImages", "--out", "found")
    assert found.returncode == 0, found.stderr


def test_without_its_file_it_is_unknown(folder, monkeypatch):
    result = run(folder, monkeypatch, "train", "config.yaml", "--out", "run", plugins="")
    assert result.returncode == 2
    assert "unknown backbone 'three_layers'" in result.stderr


@pytest.mark.parametrize(
    ("plugins", "complaint"),
    [
        ("missing.py", "found no file missing.py"),
        ("no_such_module", "no_such_module cannot be loaded: ModuleNotFoundError"),
        ("broken.py", "broken.py cannot be loaded: ZeroDivisionError"),
        ("types.py", "types.py: a module named types is loaded already; rename"),
    ],
)
def test_a_plugin_that_fails_is_named(folder, monkeypatch, plugins, complaint):
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "types.py").write_text("")
    result = run(folder, monkeypatch, "backbones", plugins=plugins)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_plugin_is_loaded_once(tmp_path, monkeypatch):
    file = tmp_path / "counts_its_runs.py"
    file.write_text("import os\nos.environ['RUNS'] = os.environ.get('RUNS', '') + 'x'\n")
    monkeypatch.setenv("RUNS", "")
    monkeypatch.setenv("DETECT_PLUGINS", str(file))
    load_plugins()
    load_plugins()
    assert os.environ["RUNS"] == "x"
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("DETECT_PLUGINS", str(file.rename(tmp_path / "other" / file.name)))
    with pytest.raises(DetectError, match="rename the file"):
        load_plugins()
    del sys.modules["counts_its_runs"]
