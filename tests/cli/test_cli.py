"""The command line as a user meets it, over a small set of shapes."""

import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

import detect
from tests.cli.conftest import CONFIG, SMALL, run
from tests.conftest import REPOSITORY


def copy_of(shapes: Path, folder: Path) -> Path:
    return Path(shutil.copytree(shapes, folder / "set"))


def first_annotation(root: Path) -> Path:
    """Of a training image with objects."""
    for name in (root / "ImageSets/Main/train.txt").read_text().split():
        path = root / "Annotations" / f"{name}.xml"
        if "<object>" in path.read_text():
            return path
    raise AssertionError


def test_run_folder_is_complete(trained: Path):
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    boards = {name for name in names if name.startswith("tensorboard/events")}
    assert len(boards) <= 1  # where TensorBoard is installed
    assert names - boards == {
        "config.yaml",
        "starts.jsonl",
        "metrics.jsonl",
        "metrics.csv",
        "curves.png",
        "checkpoints/last.pt",
        "checkpoints/step_00000003.pt",
        "checkpoints/step_00000006.pt",
        "checkpoints/best.pt",
        "evaluation.json",
        "detections.json",
    }
    report = json.loads((trained / "evaluation.json").read_text())
    assert set(report) == {"protocol", "map_11point", "map_area", "classes"}
    assert set(report["classes"]["circle"]) == {
        "ap_11point",
        "ap_area",
        "num_objects",
        "num_difficult",
        "num_detections",
    }
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"train", "evaluation", "phase"}


def test_resolved_config_of_a_run_trains_the_same_run(trained: Path, tmp_path: Path):
    printed = run("train", trained / "config.yaml", "--out", tmp_path / "again")
    assert "mAP" in printed
    first = json.loads((trained / "evaluation.json").read_text())
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again == first


def test_evaluate_a_run_and_its_detections(trained: Path, shapes: Path, tmp_path: Path):
    trained = Path(shutil.copytree(trained, tmp_path / "run"))  # which gets another file
    run("evaluate", trained, "--json", tmp_path / "a.json")
    run("evaluate", trained / "checkpoints/best.pt", "--data", shapes, "--split", "test",
        "--save", tmp_path / "comp4", "--json", tmp_path / "b.json")  # fmt: skip
    for source in (trained / "detections-test.json", tmp_path / "comp4"):
        run("evaluate", "--detections", source, "--ground-truth", shapes, "--split", "test",
            "--json", tmp_path / f"{source.name}.c.json")  # fmt: skip
    reports = [
        json.loads(path.read_text())["classes"]
        for path in (trained / "evaluation.json", *sorted(tmp_path.glob("*.json")))
    ]
    assert len(reports) == 5
    assert all(report == reports[0] for report in reports)


def test_evaluate_needs_one_thing_to_judge(shapes: Path):
    assert "--detections" in run("evaluate", status=2)
    assert "--ground-truth" in run("evaluate", "--detections", shapes, status=2)


def test_infer_writes_every_form(trained: Path, shapes: Path, tmp_path: Path):
    images = sorted((shapes / "JPEGImages").glob("*.jpg"))[:3]
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    shutil.copy(images[0], photos / "one.jpg")
    shutil.copy(images[1], photos / "more" / "one.jpg")
    cv2.imwrite(str(photos / "two.png"), cv2.imread(str(images[2])))
    out = tmp_path / "found"
    kinds = "pictures,json,csv,voc,yolo,crops"
    run(
        "infer",
        trained,
        photos,
        photos / "two.png",
        "--out",
        out,
        "--score",
        0.001,
        "--save",
        kinds,
    )
    names = ["more/one", "one", "two"]
    content = json.loads((out / "detections.json").read_text())
    assert [image["image_id"] for image in content["images"]] == names
    num_found = sum(len(image["scores"]) for image in content["images"])
    assert num_found > 0
    rows = list(csv.DictReader((out / "detections.csv").open()))
    assert len(rows) == num_found
    assert all(float(row["score"]) >= 0.001 for row in rows)
    assert len(list((out / "crops").rglob("*.jpg"))) == num_found
    for name in names:
        assert (out / "pictures" / f"{name}.jpg").is_file()
        objects = ElementTree.parse(out / "voc" / f"{name}.xml").getroot().findall("object")
        labels = (out / "labels" / f"{name}.txt").read_text().splitlines()
        assert len(objects) == len(labels)
        corners = [child.tag for item in objects for child in item.find("bndbox") or ()]
        assert corners == ["xmin", "ymin", "xmax", "ymax"] * len(objects)
        for item in objects:
            xmin, ymin, xmax, ymax = (int(item.findtext(f"bndbox/{k}") or 0) for k in
                                      ("xmin", "ymin", "xmax", "ymax"))  # fmt: skip
            assert 1 <= xmin < xmax <= 128
            assert 1 <= ymin < ymax <= 128


def test_infer_reports_unreadable_images_and_goes_on(trained: Path, shapes: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(sorted((shapes / "JPEGImages").glob("*.jpg"))[0], photos / "good.jpg")
    (photos / "bad.jpg").write_text("this is text")
    printed = run("infer", trained, photos, "--out", tmp_path / "found", status=1)
    assert "bad.jpg" in printed
    assert "1 of 2 images could not be read" in printed
    assert (tmp_path / "found/pictures/good.jpg").is_file()


def test_infer_refuses_unknown_forms_and_missing_sources(trained: Path, tmp_path: Path):
    assert "pictures, json" in run(
        "infer", trained, tmp_path, "--out", tmp_path, "--save", "xml", status=2
    )
    assert "nothing.jpg" in run(
        "infer", trained, tmp_path / "nothing.jpg", "--out", tmp_path, status=2
    )


def test_python_interface(trained: Path, shapes: Path):
    model = detect.load(trained)
    paths = sorted((shapes / "JPEGImages").glob("*.jpg"))[:2]
    first, second = model.predict(paths, score_threshold=0)
    assert model.class_names[0] == "circle"
    alone = model.predict(str(paths[1]), score_threshold=0)
    np.testing.assert_allclose(alone.scores, second.scores, atol=1e-5)
    array = cv2.cvtColor(cv2.imread(str(paths[0])), cv2.COLOR_BGR2RGB)
    np.testing.assert_allclose(
        model.predict(array, score_threshold=0).scores, first.scores, atol=1e-5
    )
    assert model.predict([]) == []


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_end(
    trained: Path, shapes: Path, tmp_path: Path
):
    arguments = ["train", str(CONFIG), f"data.root={shapes}", *SMALL, "--out", str(tmp_path / "r")]
    command = [sys.executable, "-m", "detect", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "r/checkpoints/last.pt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=120)[0]
    assert "Traceback" not in printed
    # the signal may come after the last step of so short a run
    assert process.returncode in (130, 0), printed
    if process.returncode == 130:
        assert "--resume" in printed
    run(*arguments, "--resume")
    expected = json.loads((trained / "evaluation.json").read_text())
    assert json.loads((tmp_path / "r/evaluation.json").read_text()) == expected


def test_a_run_is_not_overwritten_nor_continued_with_other_settings(trained: Path, shapes: Path):
    arguments = ["train", CONFIG, f"data.root={shapes}", *SMALL, "--out", trained]
    assert "--resume" in run(*arguments, status=2)
    printed = run(*arguments, "training.learning_rate=0.5", "--resume", status=2)
    assert "training.learning_rate" in printed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda xml, _: xml.write_text(xml.read_text()[:-30]), ["line"]),
        (lambda xml, root: (root / "JPEGImages" / f"{xml.stem}.jpg").unlink(), [".jpg"]),
        (
            lambda xml, _: xml.write_text(xml.read_text().replace("<name>", "<name>x", 1)),
            ["object 1"],
        ),
        (
            lambda xml, root: (root / "JPEGImages" / f"{xml.stem}.jpg").write_text("text"),
            ["JPEGImages"],
        ),
    ],
    ids=["malformed XML", "deleted image", "misspelled class", "image that is text"],
)
def test_faulty_data_ends_in_one_readable_error(damage, words, shapes: Path, tmp_path: Path):
    root = copy_of(shapes, tmp_path)
    xml = first_annotation(root)
    damage(xml, root)
    classes = "data.classes=[circle,square,triangle,star,cross,ring]"
    printed = run("train", CONFIG, "data.kind=voc", classes, f"data.root={root}", *SMALL,
                  "--out", tmp_path / "r", status=2)  # fmt: skip
    for word in (xml.stem, "data check", "on_error=skip", *words):
        assert word in printed
    assert not (tmp_path / "r").exists()


def test_training_without_anything_to_judge_on(shapes: Path, tmp_path: Path):
    printed = run("train", CONFIG, f"data.root={shapes}", *SMALL, "data.val_split=null",
                  "data.test_split=null", "--out", tmp_path / "r")  # fmt: skip
    assert "Not judged" in printed
    assert (tmp_path / "r/checkpoints/best.pt").is_file()
    assert not (tmp_path / "r/evaluation.json").exists()


def test_misspelled_key_ends_in_one_readable_error(tmp_path: Path):
    config = tmp_path / "mine.yaml"
    config.write_text("training:\n  epoch: 5\n")
    printed = run("train", config, status=2)
    assert printed.strip() == (
        f"error: {config}:2: training.epoch: unknown key; did you mean 'epochs'?"
    )


def test_print_config_shows_values_and_origins(tmp_path: Path):
    printed = run("train", CONFIG, "training.epochs=3", "--print-config", folder=tmp_path)
    assert "epochs: 3" in printed
    assert "# command line" in printed
    assert "# default" in printed
    assert "# yolo_tiny_shapes:" in printed
    assert not list(tmp_path.iterdir())


def test_data_check_writes_json_and_fails_on_errors(shapes: Path, tmp_path: Path):
    run("data", "check", shapes)
    root = copy_of(shapes, tmp_path)
    xml = first_annotation(root)
    text = xml.read_text()
    begin, end = text.index("<xmin>"), text.index("</xmin>")
    xml.write_text(text[:begin] + "<xmin>5000" + text[end:])
    printed = run("data", "check", root, "--json", tmp_path / "f.json", status=1)
    assert xml.stem in printed
    content = json.loads((tmp_path / "f.json").read_text())
    assert {"num_images", "num_objects", "rules", "faults"} <= set(content)
    errors = [fault for fault in content["faults"] if fault["severity"] == "error"]
    assert len(errors) == 1
    assert set(errors[0]) == {"file", "object", "rule", "value", "remedy", "severity"}


def test_data_stats_and_show_and_shapes(shapes: Path, tmp_path: Path):
    assert "circle" in run("data", "stats", shapes, "--json", tmp_path / "s.json")
    statistics = json.loads((tmp_path / "s.json").read_text())
    assert statistics["num_images"] == 28
    sheet = tmp_path / "sheet.png"
    run("data", "show", CONFIG, f"data.root={shapes}", *SMALL, "--out", sheet, "--count", 4)
    assert cv2.imread(str(sheet)) is not None
    run("data", "shapes", tmp_path / "new", "--images", 10, "--seed", 3)
    assert len(list((tmp_path / "new/JPEGImages").iterdir())) == 10


def test_doctor_finds_no_fault():
    assert "No problems found" in run("doctor")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["evaluate"],
        ["infer"],
        ["demo"],
        ["doctor"],
        ["data"],
        ["data", "check"],
        ["data", "stats"],
        ["data", "show"],
        ["data", "shapes"],
        ["data", "convert"],
        ["data", "split"],
        ["compare"],
        ["proposals"],
        ["analyze"],
    ],
    ids=" ".join,
)
def test_help(command: list[str]):
    printed = run(*command, "--help")
    assert "Usage" in printed
    assert "Examples" in printed or not command


@pytest.mark.parametrize("name", ["train", "evaluate", "infer"])
def test_tools_are_the_same_commands(name: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "tools" / f"{name}.py"), run_name="__main__")
    assert not ended.value.code
    assert f"detect {name}" in capsys.readouterr().out


def test_a_process_of_its_own(tmp_path: Path):
    """Its exit status, and one error on stderr, in an encoding that lacks signs of the message."""
    config = tmp_path / "größe.yaml"
    config.write_text("training: {epoch: 5}\n")
    finished = subprocess.run(
        [sys.executable, "-m", "detect", "train", config],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stdout == b""
    assert finished.stderr.endswith(b"unknown key; did you mean 'epochs'?\n")
    assert b"gr\\xf6\\xdfe.yaml:1: training.epoch:" in finished.stderr
