"""`detect analyze`, on jittered copies of the true boxes of a small drawn set."""

import io
import json
from pathlib import Path

import cv2
import pytest
import torch
from rich.console import Console

from detect.cli.analyze import run_analysis
from detect.configs import find_config
from detect.data import read_dataset
from detect.errors import DetectError
from detect.evaluation import DetectionSet, write_detections_json, write_voc_detections
from detect.structures import Detections
from tests.cli.conftest import run

IMAGES = {"tide.png", "hoiem.png", "precision_recall.png", "score_curves.png"}
IMAGES |= {"confusion_matrix.png", "recall.png"}


@pytest.fixture(scope="module")
def found(shapes: Path) -> DetectionSet:
    """The boxes of the test split, moved a little, some in the wrong class, scores in 0…1."""
    dataset = read_dataset(shapes, "test")
    generator = torch.Generator().manual_seed(0)
    detections = []
    for truth in dataset.truths:
        count = len(truth)
        moves = torch.randint(-3, 4, (count, 4), generator=generator)
        labels = torch.where(torch.arange(count) % 4 == 3, 0, truth.labels)
        scores = torch.rand(count, generator=generator)
        detections.append(Detections.sorted((truth.boxes + moves).float(), scores, labels))
    return DetectionSet(tuple(dataset.class_names), tuple(dataset.image_ids), tuple(detections))


def analyze(**settings: object) -> str:
    text = io.StringIO()
    run_analysis(**settings, console=Console(file=text, width=200))
    return text.getvalue()


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images take seconds."""
    monkeypatch.setattr("detect.cli.analyze._draw", lambda *_: [])


@pytest.fixture
def run_folder(shapes: Path, found: DetectionSet, tmp_path: Path) -> Path:
    """What `detect analyze` reads of a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = find_config("yolo_tiny_shapes").read_text()
    (folder / "config.yaml").write_text(
        config.replace("data/shapes", f"{shapes}\n  num_images: 40")
    )
    write_detections_json(folder / "detections.json", found)
    return folder


def test_a_run_is_analyzed_into_its_folder(run_folder: Path):
    printed = analyze(run=run_folder)
    out = run_folder / "analysis"
    assert files_of(out) == {"analysis.json", "reliability.png", *IMAGES}
    for name in files_of(out) - {"analysis.json"}:
        image = cv2.imread(str(out / name))
        assert image is not None
        assert image.std() > 5
    report = json.loads((out / "analysis.json").read_text())
    assert report["num_detections"] > 30
    assert report["tide"]["delta_average_precision"]["classification"] > 0.05
    for words in ("run, test", "TIDE: mAP", "Confusion matrix", "D-ECE", "XL", str(out)):
        assert words in printed


@pytest.mark.usefixtures("undrawn")
def test_files_in_both_forms_give_the_same(shapes: Path, found: DetectionSet, tmp_path: Path):
    write_detections_json(tmp_path / "found.json", found)
    write_voc_detections(tmp_path / "comp4", "test", found)
    for name in ("found.json", "comp4"):
        analyze(detections=tmp_path / name, data=shapes, split="test", out=tmp_path / f"of {name}")
    first, second = ((tmp_path / f"of {name}" / "analysis.json").read_text()
                     for name in ("found.json", "comp4"))  # fmt: skip
    assert first == second


def test_margins_leave_out_calibration_and_say_so(
    shapes: Path, found: DetectionSet, tmp_path: Path
):
    margins = tuple(Detections(d.boxes, d.scores * 4 - 2, d.labels) for d in found.detections)
    write_detections_json(
        tmp_path / "a $\\wrong$ name.json",
        DetectionSet(found.class_names, found.image_ids, margins),
    )
    printed = analyze(
        detections=tmp_path / "a $\\wrong$ name.json",
        data=shapes,
        split="test",
        out=tmp_path / "out",
        score_threshold=-1.0,
        similar=["circle, ring"],
    )
    assert files_of(tmp_path / "out") == {"analysis.json", *IMAGES}
    assert "note: left out: calibration: expected scores in 0…1" in printed
    assert "score ≥ -1" in printed
    assert "Similar classes: circle, ring." in printed


@pytest.mark.usefixtures("undrawn")
def test_classes_that_the_split_has_not_are_named(
    shapes: Path, found: DetectionSet, tmp_path: Path
):
    names = (*found.class_names, "unicorn")
    wider = DetectionSet(names, found.image_ids, found.detections)
    write_detections_json(tmp_path / "found.json", wider)
    printed = analyze(
        detections=tmp_path / "found.json", data=shapes, split="test", out=tmp_path / "out"
    )
    assert "note: test has no object of the class 'unicorn'" in printed
    report = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert report["tide"]["classes"]["unicorn"]["average_precision"] is None


@pytest.mark.usefixtures("undrawn")
def test_faults_are_readable_errors(shapes: Path, run_folder: Path, tmp_path: Path):
    with pytest.raises(DetectError, match=r"absent: expected the folder of a run with a detect"):
        analyze(run=tmp_path / "absent")
    with pytest.raises(DetectError, match=r"similar classes: unknown class 'ringg'.*'ring'"):
        analyze(run=run_folder, similar=["circle,ringg"])
    with pytest.raises(DetectError, match="iou_threshold: expected more than 0"):
        analyze(run=run_folder, iou_threshold=2.0)
    with pytest.raises(DetectError, match="expected --split NAME beside the folder; there are: "):
        analyze(detections=tmp_path / "found.json", data=shapes)
    (run_folder / "config.yaml").unlink()
    with pytest.raises(DetectError, match=r"config\.yaml"):
        analyze(run=run_folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either a run, or --detections"),
        (["run", "--data", "somewhere"], "go with --detections"),
        (["--detections", "found.json"], "needs --data ROOT, with --split NAME, or a file"),
        (["absent"], "expected the folder of a run"),
    ],
)
def test_arguments_that_do_not_belong_together(arguments: list[str], words: str, tmp_path: Path):
    assert words in run("analyze", *arguments, status=2, folder=tmp_path)
