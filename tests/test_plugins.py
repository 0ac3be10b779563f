"""A backbone and a detector from outside the package: one file each, as their pages have them."""

import json
import os
import re
import subprocess
import sys

import pytest

from detect.errors import DetectError
from detect.plugins import load_plugins
from tests.conftest import REPOSITORY


def blocks(page):
    """The Python and the YAML of a page of the documentation."""
    text = (REPOSITORY / "docs" / page).read_text()
    return [re.search(rf"```{name}\n(.*?)```", text, re.DOTALL)[1] for name in ("python", "yaml")]


FILE, CONFIG = blocks("own_backbone.md")


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


def test_a_detector_of_ones_own_trains_and_detects(tmp_path, monkeypatch):
    code, config = blocks("own_detector.md")
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "config.yaml").write_text(config)
    trained = run(tmp_path, monkeypatch, "train", "config.yaml", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    assert 0 <= json.loads((tmp_path / "run" / "evaluation.json").read_text())["map_area"] <= 1
    assert json.loads((tmp_path / "run" / "detections.json").read_text())["images"]
    wrong = run(tmp_path, monkeypatch, "train", "config.yaml", "detector.iou_threshold=2")
    assert wrong.returncode == 2
    assert "detector.iou_threshold: expected 0 to 1, found 2" in wrong.stderr


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
