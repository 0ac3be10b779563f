"""`detect proposals`, in this process where nothing but its answers counts."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from rich.console import Console
from scipy.io import savemat

from detect.cli.proposals import run_proposals
from detect.data import draw_shapes
from detect.errors import DetectError
from detect.proposals import read_proposals
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml
from tests.proposals.image_sources import blobs, four_squares

QUICK = ["mode=single"]


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of four squares, whose objects are a square and all of them together."""
    voc = VOCFolder(tmp_path_factory.mktemp("voc") / "squares")
    corner = object_xml("corner", (1, 1, 60, 60))
    row = object_xml("row", (1, 1, 240, 60))
    nowhere = object_xml("corner", (3, 31, 9, 34), "<difficult>1</difficult>")
    size = (60, 240)
    image = png(four_squares())
    voc.add("one", annotation_xml(corner, row, size=size), image, ".png")
    voc.add("two", annotation_xml(row, nowhere, size=size), image, ".png")
    voc.split("trainval", "one", "two")
    voc.split("test", "two")
    return voc.root


def run(*arguments, **options):
    output = io.StringIO()
    console = Console(file=output, width=200)
    options = {"settings": QUICK, "num_workers": 1, **options}
    run_proposals(*arguments, console=console, **options)
    return output.getvalue()


def test_proposals_of_a_folder(tmp_path, folder):
    out, report, plot = tmp_path / "p.npz", tmp_path / "r.json", tmp_path / "curve.png"
    printed = run(folder, out, json_file=report, plot=plot)
    assert "selective-search: 2 images, 3 objects; 1 difficult one not counted" in printed
    assert "0 of 2 images from the cache" in printed
    assert "s an image (median)" in printed
    proposals = read_proposals(out, {"one": (60, 240), "two": (60, 240)})
    assert proposals.settings["strategies"]["color_spaces"] == ["hsv"]
    content = json.loads(report.read_text())
    assert content["recall_0.5"] == content["recall_0.7"] == content["mabo"] == 1
    assert content["protocol"]["num_difficult"] == 1
    assert content["classes"]["corner"]["num_objects"] == 1
    assert content["fingerprint"] == proposals.fingerprint
    assert content["median_seconds"] > 0
    assert content["curve"][0]["recall_0.7"] < 1
    assert plot.read_bytes().startswith(b"\x89PNG")
    # the same again comes from the cache; another seed does not
    assert "2 of 2 images from the cache" in run(folder, out)
    assert read_proposals(out).fingerprint == proposals.fingerprint
    assert "0 of 2 images" in run(folder, out, settings=[*QUICK, "seed=1"])
    # but fewer boxes do
    assert "2 of 2 images from the cache" in run(folder, out, max_boxes=2)
    assert read_proposals(out).counts.tolist() == [2, 2]


def test_a_split_is_chosen(tmp_path, folder):
    run(folder, tmp_path / "p.npz", split="test")
    assert read_proposals(tmp_path / "p.npz").image_ids == ("two",)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dense-windows", ["stride=0.5", "scales=[0.5, 0.3]"]),
        ("random-boxes", ["count=30", "seed=4"]),
        ("jittered-truth", ["jitter=0.1", "count=3"]),
    ],
)
def test_other_methods(tmp_path, folder, method, settings):
    printed = run(folder, tmp_path / "p.npz", method=method, settings=settings)
    assert f"{method}: 2 images" in printed
    found = read_proposals(tmp_path / "p.npz", {"one": (60, 240), "two": (60, 240)}).settings
    assert found["method"] == method
    key, _, value = settings[0].partition("=")
    assert found[key] == json.loads(value)


def test_the_original_releases_boxes_are_judged_and_converted(tmp_path, folder):
    boxes = np.empty((1, 2), object)
    boxes[0, 0] = np.array([[1, 1, 60, 60], [1, 1, 60, 240], [1, 1, 60, 60]])
    boxes[0, 1] = np.array([[1, 1, 60, 144]])  # IoU 0.6
    images = np.empty((2, 1), object)
    images[:, 0] = ["one", "two"]
    savemat(tmp_path / "theirs.mat", {"boxes": boxes, "images": images})
    out, report = tmp_path / "p.npz", tmp_path / "r.json"
    printed = run(folder, out, boxes=tmp_path / "theirs.mat", json_file=report, settings=[])
    assert "left out, repeated: 1 box\n" in printed
    assert read_proposals(out)["one"].tolist() == [[0, 0, 60, 60], [0, 0, 240, 60]]
    content = json.loads(report.read_text())
    assert content["recall_0.5"] == 1
    assert content["recall_0.7"] == pytest.approx(2 / 3)
    assert content["median_seconds"] is None


def test_the_data_of_a_config(tmp_path):
    shapes = tmp_path / "shapes"
    draw_shapes(shapes, num_images=10, image_size=(64, 64))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {{kind: shapes, root: {shapes}, num_images: 10, image_size: 64}}\n"
        "backbone: {name: tiny}\ndetector: {name: yolo}\n"
    )
    printed = run(config, tmp_path / "p.npz", split="test", settings=[*QUICK, "min_size=4"])
    names = (shapes / "ImageSets/Main/test.txt").read_text().split()
    assert list(read_proposals(tmp_path / "p.npz").image_ids) == names
    assert f"{len(names)} images" in printed
    with pytest.raises(DetectError, match="expected train, val or test, found 'trainval'"):
        run(config, tmp_path / "p.npz", split="trainval")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": ["mode=quick"]}, "mode of selective-search: .*found quick"),
        ({"settings": ["modes=fast"]}, "modes of selective-search: unknown key"),
        ({"settings": ["seed=x"]}, "seed of selective-search: .*found x"),
        ({"settings": ["seed=[1, null]"]}, r"seed of selective-search: .*found \[1, null\]"),
        ({"settings": ["seed"]}, "'seed': expected KEY=VALUE"),
        ({"settings": ["seed=["]}, "the value is no YAML"),
        ({"settings": ["min_size=-1"]}, "min_size of selective search: expected 0 or more"),
        ({"method": "selective"}, "unknown 'selective'; did you mean 'selective-search'"),
        ({"method": "dense-windows"}, "mode of dense-windows: unknown key"),
        ({"split": "nothing"}, "nothing"),
        (
            {"plot": "curve.txt"},
            "--plot: expected a name that ends with .png, .pdf, .svg",
        ),
        ({"boxes": "b.npz"}, "--boxes: a file has no parameters; leave out mode=single"),
        ({"boxes": "b.npz", "settings": []}, "b.npz: cannot be read"),
        ({"out": "p.json"}, "--out: expected a name that ends with .npz, found p.json"),
    ],
)
def test_faults_are_told_before_the_work(tmp_path, folder, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {name: tmp_path.__class__(options[name]) for name in ("plot", "boxes", "out")
             if name in options}  # fmt: skip
    options = {**options, **paths}
    with pytest.raises(DetectError, match=message):
        run(folder, options.pop("out", tmp_path / "p.npz"), **options)
    assert not (tmp_path / "p.cache").exists()


def test_a_broken_image_is_named(tmp_path):
    voc = VOCFolder(tmp_path / "broken")
    whole = png(four_squares())
    xml = annotation_xml(object_xml("a", (1, 1, 60, 60)), size=(60, 240))
    voc.add("good", xml, whole, ".png")
    bad = bytearray(whole)
    bad[60:90] = bytes(30)
    voc.add("bad", xml, bytes(bad), ".png")
    voc.split("trainval", "good", "bad")
    with pytest.raises(DetectError, match=r"bad\.png"):
        run(voc.root, tmp_path / "p.npz")
    assert len(list((tmp_path / "p.cache").iterdir())) == 1
    printed = run(voc.root, tmp_path / "p.npz", on_error="skip")
    assert "left out as faulty (on_error=skip): 1 image," in printed
    assert read_proposals(tmp_path / "p.npz").image_ids == ("good",)


def test_ctrl_c_keeps_what_is_done(tmp_path):
    voc = VOCFolder(tmp_path / "noise")
    names = [f"p{number}" for number in range(16)]
    for number, name in enumerate(names):
        xml = annotation_xml(object_xml("a", (1, 1, 60, 60)), size=(150, 200))
        voc.add(name, xml, png(blobs((150, 200), number)), ".png")
    voc.split("trainval", *names)
    command = [sys.executable, "-c", "from detect.cli import main; main()", "proposals"]
    command += [str(voc.root), "--out", str(tmp_path / "p.npz"), "--mode", "quality"]
    command += ["--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cache, end = tmp_path / "p.cache", time.monotonic() + 200
    while not list(cache.glob("[!.]*.npz")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert "of 16 images are done and kept in" in printed
    num_kept = len(list(cache.glob("*.npz")))
    assert 0 < num_kept < 16
    assert f"{num_kept} of 16" in printed
    assert not (tmp_path / "p.npz").exists()
    settings = ["mode=quality"]
    printed = run(voc.root, tmp_path / "p.npz", settings=settings)
    assert f"{num_kept} of 16 images from the cache" in printed
    run(voc.root, tmp_path / "undisturbed.npz", settings=settings)
    continued = read_proposals(tmp_path / "p.npz")
    assert continued.fingerprint == read_proposals(tmp_path / "undisturbed.npz").fingerprint


def test_objects_of_photographs_are_found(tmp_path, shared):
    root = shared / "data/voc2012_sample"
    names = (root / "ImageSets/Main/all.txt").read_text().split()[::36]
    voc = VOCFolder(tmp_path / "few")
    for name in names:
        xml = (root / f"Annotations/{name}.xml").read_bytes()
        voc.add(name, xml, (root / f"JPEGImages/{name}.jpg").read_bytes())
    voc.split("trainval", *names)
    report = tmp_path / "r.json"
    run(voc.root, tmp_path / "p.npz", settings=[], max_boxes=2000, json_file=report)
    content = json.loads(report.read_text())
    assert content["recall_0.5"] >= 0.85
    assert content["mabo"] >= 0.75


@pytest.mark.slow
def test_fast_mode_covers_the_objects_of_108_photographs(tmp_path, shared):
    report = tmp_path / "r.json"
    run(
        shared / "data/voc2012_sample", tmp_path / "p.npz", split="all", settings=[],
        max_boxes=2000, json_file=report, num_workers=2,
    )  # fmt: skip
    content = json.loads(report.read_text())
    assert content["protocol"]["num_images"] == 108
    assert content["recall_0.5"] >= 0.95
    assert content["mabo"] >= 0.78
    assert content["mean_boxes"] <= 2000
