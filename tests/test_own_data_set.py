"""A data set from outside the package: the file of docs/own_data_set.md, run as it stands there."""

import csv
import json
import re
import subprocess
import sys

import pytest

from detect.data import draw_shapes, read_annotated
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "own_data_set.md").read_text()
KEYS = ("image", "class", "x1", "y1", "x2", "y2")


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def folder(tmp_path):
    draw_shapes(tmp_path / "shapes", 20, image_size=(64, 64))
    annotated = read_annotated(tmp_path / "shapes", ["train", "val", "test"])
    root = tmp_path / "drawn"
    root.mkdir()
    (tmp_path / "shapes" / "JPEGImages").rename(root / "images")
    for split in ("train", "val", "test"):
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(KEYS)
            for image in annotated.images:
                if split in image.splits:
                    for item in image.objects:
                        writer.writerow([image.image_path.name, item.name, *item.box])
    (tmp_path / "csv_boxes.py").write_text(block("python"))
    (tmp_path / "config.yaml").write_text(block("yaml"))
    return tmp_path


def run(folder, monkeypatch, *arguments):
    monkeypatch.setenv("DETECT_PLUGINS", "csv_boxes.py")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return subprocess.run(
        [sys.executable, "-m", "detect", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_trains_and_judges_a_detector(folder, monkeypatch):
    trained = run(folder, monkeypatch, "train", "config.yaml", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    # one of twelve has no object, and so no row
    assert "train: 11 images" in trained.stdout
    report = json.loads((folder / "run" / "evaluation.json").read_text())
    assert 0 <= report["map_area"] <= 1
    judged = run(folder, monkeypatch, "evaluate", "run", "--json", "again.json")
    assert judged.returncode == 0, judged.stderr
    again = json.loads((folder / "again.json").read_text())
    assert again["map_area"] == pytest.approx(report["map_area"])


def test_its_own_keys_are_checked(folder, monkeypatch):
    wrong = run(folder, monkeypatch, "train", "config.yaml", "data.delimeter=x", "--out", "run")
    assert wrong.returncode == 2
    assert "data.delimeter: unknown key; did you mean 'delimiter'?" in wrong.stderr
