"""`detect data convert | split`, and the other commands on what they write."""

import json

import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner

from detect.cli.app import app
from detect.cli.data import print_statistics
from detect.cli.evaluate import run_evaluation
from detect.config import resolve
from detect.data import DataFaults, read_annotated, splits_of
from detect.errors import DetectError
from detect.evaluation import DetectionSet, write_detections_json
from detect.experiment.datasets import read_split, read_splits
from detect.settings import Settings
from detect.structures import Detections


@pytest.fixture(scope="module")
def shapes(small_shapes):
    return small_shapes


def run(*arguments, status=0):
    """What a command prints; the error that it ends in is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, DetectError):
        raise result.exception
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def roots(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    for name in ("coco", "yolo"):
        printed = run("data", "convert", shapes, "--to", name, "--out", folder / name)
        assert "20 images" in printed
        assert f"as {name}" in printed
        assert "not kept" not in printed
    return {"voc": shapes, "coco": folder / "coco", "yolo": folder / "yolo"}


def test_conversion_back_with_links(roots, tmp_path):
    out = tmp_path / "voc"
    run("data", "convert", roots["yolo"] / "data.yaml", "--to", "voc", "--out", out, "--link")
    assert (out / "ImageSets/Main/train.txt").read_text().split() == sorted(
        (roots["voc"] / "ImageSets/Main/train.txt").read_text().split()
    )
    before, after = read_annotated(roots["voc"]), read_annotated(out)
    names = {p.image_id: [(o.name, o.box) for o in p.objects] for p in before.images}
    assert {p.image_id: [(o.name, o.box) for o in p.objects] for p in after.images} == names


def test_conversion_of_a_faulty_set(roots, tmp_path):
    run("data", "convert", roots["coco"], "--to", "coco", "--out", tmp_path / "set")
    file = tmp_path / "set/annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] = 0
    file.write_text(json.dumps(content))
    arguments = ("data", "convert", tmp_path / "set", "--to", "voc", "--out", tmp_path / "voc")
    with pytest.raises(DataFaults, match="--on-error skip"):
        run(*arguments)
    assert not (tmp_path / "voc").exists()
    printed = run(*arguments, "--on-error", "skip")
    assert "zero-size-box" in printed
    assert "0 images, 1 object" in printed


def test_conversion_into_itself_or_from_another_format(roots, tmp_path):
    inside = roots["voc"] / "coco"
    with pytest.raises(DetectError, match="outside of"):
        run("data", "convert", roots["voc"], "--to", "coco", "--out", inside)
    with pytest.raises(DetectError, match="found none"):
        run("data", "convert", roots["voc"], "--to", "coco", "--out", tmp_path / "a", "--from",
            "coco")  # fmt: skip
    run("data", "convert", roots["voc"], "--to", "xml", "--out", tmp_path / "a", status=2)


def test_split_into_a_set_of_its_own(roots, tmp_path):
    for name, root in roots.items():
        out = tmp_path / name
        printed = run("data", "split", root, "--out", out, "--shares", "fit=0.75,held=0.25")
        assert sorted(splits_of(out)) == ["fit", "held"]
        assert "15 (75.0%)" in printed
    splits = [
        {p.image_id: p.splits for p in read_annotated(tmp_path / name).images} for name in roots
    ]
    assert splits[0] == splits[1] == splits[2]  # the same images, the same seed


def test_split_in_place(shapes, tmp_path):
    root = tmp_path / "set"
    run("data", "convert", shapes, "--to", "voc", "--out", root)
    arguments = ("data", "split", root, "--in-place", "--shares", "train=0.8,val=0.2")
    with pytest.raises(DetectError, match=r"train\.txt.*--force"):
        run(*arguments)
    printed = run(*arguments, "--force", "--seed", 5)
    assert "the splits test, trainval stay as they were" in printed
    files = [root / f"ImageSets/Main/{name}.txt" for name in ("train", "val")]
    first = [file.read_text() for file in files]
    assert sum(len(text.split()) for text in first) == 20
    assert len(first[1].split()) in (3, 4, 5)  # classes come first
    run(*arguments, "--force", "--seed", 5)
    assert [file.read_text() for file in files] == first


def test_split_asks_where(shapes, tmp_path):
    run("data", "split", shapes, status=2)
    run("data", "split", shapes, "--in-place", "--out", tmp_path / "a", status=2)
    run("data", "split", shapes, "--out", tmp_path / "a", "--force", status=2)
    with pytest.raises(DetectError, match="--shares"):
        run("data", "split", shapes, "--out", tmp_path / "a", "--shares", "train=2")


# ---- the other commands ------------------------------------------------------------------------


def config_of(root, kind):
    data = {"kind": kind, "root": str(root), "num_workers": 0}
    return resolve(Settings({"data": data}, {}), "test")


def test_training_reads_every_format_alike(roots):
    console = Console(quiet=True)
    expected = read_splits(config_of(roots["coco"], "coco"), console)
    for kind, root in (("yolo", "yolo"), ("auto", "yolo"), ("auto", "coco"), ("auto", "voc")):
        found = read_splits(config_of(roots[root], kind), console)
        assert found.keys() == expected.keys()
        for split, dataset in found.items():
            other = expected[split]
            assert dataset.class_names == other.class_names
            assert sorted(dataset.image_ids) == sorted(other.image_ids)
            for image_id, truth in zip(dataset.image_ids, dataset.truths, strict=True):
                same = other.truths[other.image_ids.index(image_id)]
                assert truth.boxes.tolist() == same.boxes.tolist()
                assert truth.labels.tolist() == same.labels.tolist()


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_a_wrong_kind_names_the_right_one(roots, name):
    with pytest.raises(DetectError, match=f"set data.kind={name}"):
        read_split(config_of(roots[name], "voc"), "train_split", Console(quiet=True))


def test_statistics_are_the_same_in_every_format(roots, tmp_path):
    found = []
    for name, root in roots.items():
        print_statistics(root, None, "auto", tmp_path / f"{name}.json", Console(quiet=True))
        found.append(json.loads((tmp_path / f"{name}.json").read_text()))
    assert found[0] == found[1] == found[2]
    assert found[0]["num_images"] == 14  # of trainval


def test_detections_are_judged_by_any_format(roots, tmp_path):
    images = read_annotated(roots["voc"], ["test"])
    labels = {name: label for label, name in enumerate(images.class_names)}
    boxes = [[o.box for o in p.objects][1:] for p in images.images]  # one of each is missed
    detections = [
        Detections(
            torch.tensor(own).reshape(-1, 4),
            torch.full((len(own),), 0.5),
            torch.tensor([labels[o.name] for o in p.objects][1:], dtype=torch.int64),
        )
        for own, p in zip(boxes, images.images, strict=True)
    ]
    ids = tuple(p.image_id for p in images.images)
    file = tmp_path / "found.json"
    write_detections_json(file, DetectionSet(images.class_names, ids, tuple(detections)))
    reports = []
    for name, root in roots.items():
        target = tmp_path / f"{name}.json"
        run_evaluation(
            [file], data=root, split="test", json_file=target, console=Console(quiet=True)
        )
        reports.append(json.loads(target.read_text()))
    assert reports[0]["map_area"] == reports[1]["map_area"] == reports[2]["map_area"]
    assert 0 < reports[0]["map_area"] < 1


def test_the_yaml_file_of_a_converted_set_is_what_others_read(roots):
    content = yaml.safe_load((roots["yolo"] / "data.yaml").read_text())
    assert (content["train"], content["val"], content["test"]) == (
        "images/train",
        "images/val",
        "images/test",
    )
    assert sorted(content["names"]) == list(range(len(content["names"])))
