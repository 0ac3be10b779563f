"""`detect compare`, and proposals of one run for another."""

import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from detect.cli.compare import run_comparison
from detect.cli.evaluate import run_evaluation
from detect.cli.proposals import run_proposals
from detect.config import resolve
from detect.detectors.proposing import build_source
from detect.errors import DetectError
from detect.evaluation import read_detections_json
from detect.experiment.model import load
from detect.experiment.training import train
from detect.proposals import read_proposals
from detect.settings import Settings

SMALL_HEAD = {"head": "mlp", "hidden_features": [16]}
DETECTORS = {
    "yolo": {"name": "yolo", "head": "convolutional", "variant": "modern", "hidden_features": 8},
    "fast": {
        "name": "fast_rcnn",
        "shorter_side": 64,
        "proposals": "random-boxes",
        "proposal_options": {"count": 20},
        "background_iou": [0.0, 0.5],
        **SMALL_HEAD,
    },
    "faster": {
        "name": "faster_rcnn",
        "shorter_side": 64,
        "anchor_sizes": [16, 32],
        "rpn_channels": 16,
        "test_proposals": [50, 12],
        **SMALL_HEAD,
    },
}


CONFIG_ROWS = list(enumerate(sorted(DETECTORS), 1))


def settings_of(root: Path, name: str) -> dict:
    data = {
        "kind": "shapes",
        "root": str(root / "shapes"),
        "num_images": 20,
        "image_size": 64,
        "augmentation": None,
        "num_workers": 0,
        "cache": str(root / "cache"),
    }
    training = {"epochs": 1, "batch_size": 6, "learning_rate": 0.001}
    detector = {"input_size": 64, **DETECTORS[name]}
    return {"data": data, "detector": detector, "training": training}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "configs").mkdir()
    for name in DETECTORS:
        file = folder / "configs" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings_of(folder, name)))
    return folder


def compare(root: Path, *runs: str, out: str = "out", **options) -> tuple[str, dict]:
    console = Console(file=io.StringIO(), width=200)
    run_comparison(runs, root / out, num_images=3, device="cpu", console=console, **options)
    return console.file.getvalue(), json.loads((root / out / "comparison.json").read_text())


@pytest.fixture(scope="module")
def compared(root: Path) -> tuple[str, dict]:
    return compare(root, str(root / "configs"), "training.epochs=1")


def test_a_folder_of_configs_is_trained_and_compared(root, compared):
    text, report = compared
    rows = {row["name"]: row for row in report["runs"]}
    assert list(rows) == ["fast", "faster", "yolo"]
    for name, row in rows.items():
        assert row["detector"] == DETECTORS[name]["name"]
        kept = json.loads((root / "out" / name / "evaluation.json").read_text())
        assert row["map_area"] == kept["map_area"]
        assert row["map_11point"] == kept["map_11point"]
        model = load(root / "out" / name, "cpu")
        assert row["num_parameters"] == sum(p.numel() for p in model.detector.parameters())
        assert list(row["seconds"]) == ["proposals", "network", "post-processing"]
        assert row["seconds"]["network"] > 0
        assert row["total_seconds"] == pytest.approx(sum(row["seconds"].values()))
        assert row["training_seconds"] > 0
        assert name in text
    assert rows["yolo"]["seconds"]["proposals"] == 0
    assert rows["faster"]["seconds"]["proposals"] > 0
    # 20 boxes of 16 bytes in each of the 20 images
    assert rows["fast"]["cache_bytes"] == 20 * 20 * 16
    assert rows["yolo"]["cache_bytes"] == rows["faster"]["cache_bytes"] == 0
    assert (root / "out" / "comparison.png").stat().st_size > 5000
    assert "6 images" in text  # the test split


def test_a_comparison_says_first_what_it_will_do(root, compared):
    text = compared[0]
    configs = [f"  {row}. {root / 'configs' / name}.yaml" for row, name in CONFIG_ROWS]
    assert text.startswith("\n".join(["3 configs to train:", *configs]))
    runs = [f"  {row}. {root / 'out' / name}" for row, name in CONFIG_ROWS]
    assert "\n".join(["3 runs to judge and time:", *runs]) in text
    assert "Training: train, 1 epoch of " in text  # Fast R-CNN and YOLO


def test_what_is_trained_is_not_trained_again(root, compared):
    before = (root / "out" / "yolo" / "checkpoints" / "best.pt").stat().st_mtime_ns
    text, report = compare(root, str(root / "configs"), "data.num_workers=0")
    assert text.count("trained already with these settings; its results are reused") == 3
    assert (root / "out" / "yolo" / "checkpoints" / "best.pt").stat().st_mtime_ns == before
    assert [row["map_area"] for row in report["runs"]] == [
        row["map_area"] for row in compared[1]["runs"]
    ]


@pytest.mark.usefixtures("compared")
def test_results_of_other_settings_are_not_told_as_those_of_these(root):
    before = sorted((root / "out").rglob("*"))
    with pytest.raises(DetectError) as caught:
        compare(root, str(root / "configs"), "seed=1", "training.learning_rate=0.5")
    message = str(caught.value)
    for words in (str(root / "out" / "fast"), "seed: 0 before, 1 now",
                  "training.learning_rate: 0.001 before, 0.5 now", "another --out"):  # fmt: skip
        assert words in message
    assert sorted((root / "out").rglob("*")) == before


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("finished", [True, False])
def test_all_configs_are_checked_before_any_is_trained(root, tmp_path, finished):
    last = tmp_path / "yolo"
    shutil.copytree(root / "out" / "yolo", last)
    if not finished:
        (last / "evaluation.json").unlink()
    with pytest.raises(DetectError, match=r"(?s)yolo: .*other settings.*seed: 0 before, 1 now"):
        compare(root, str(root / "configs"), "seed=1", out=tmp_path)
    assert list(tmp_path.iterdir()) == [last]


def test_configs_of_one_name_do_not_share_a_folder(root, tmp_path):
    shutil.copy(root / "configs" / "yolo.yaml", tmp_path)
    with pytest.raises(DetectError, match="yolo: two configs have this name"):
        compare(root, str(root / "configs"), str(tmp_path / "yolo.yaml"), out=tmp_path / "out")


@pytest.mark.usefixtures("compared")
def test_another_split_is_judged_anew(root):
    runs = [str(root / "out" / name) for name in ("yolo", "faster")]
    text, _ = compare(root, *runs, out="val", data=root / "shapes", split="val")
    assert "2 images" in text


@pytest.mark.usefixtures("compared")
def test_runs_of_other_images_are_not_compared(root, tmp_path):
    settings = settings_of(tmp_path, "yolo")
    settings["data"]["num_images"] = 30
    train(resolve(Settings(settings, {}), "this test"), tmp_path / "other", device="cpu")
    with pytest.raises(DetectError, match="other: its test split has other images"):
        compare(root, str(root / "out" / "yolo"), str(tmp_path / "other"))


def test_requests_that_cannot_be(root, tmp_path):
    with pytest.raises(DetectError, match="at least one run or config"):
        compare(root, "training.epochs=1")
    with pytest.raises(DetectError, match="a folder of configs, found"):
        compare(root, str(tmp_path))
    with pytest.raises(DetectError, match="--data and --split go together"):
        compare(root, "a", split="val")


# --- proposals of a run ---------------------------------------------------------------------------


@pytest.mark.usefixtures("compared")
def test_a_fast_rcnn_takes_the_proposals_of_a_faster_one(root, tmp_path):
    settings = settings_of(root, "fast")
    settings["detector"]["proposals"] = f"rpn:{root / 'out' / 'faster'}"
    settings["detector"]["proposal_options"] = {}
    evaluation = train(resolve(Settings(settings, {}), "this test"), tmp_path / "run", device="cpu")
    assert evaluation is not None
    model = load(tmp_path / "run", "cpu")
    source = model.detector.proposal_source
    assert source.settings["method"] == "rpn"
    # what was found beforehand is what is found when there is nothing but an image
    console = Console(file=io.StringIO())
    file = tmp_path / "again.json"
    run_evaluation(
        [tmp_path / "run"], data=root / "shapes", split="test", save=file, device="cpu",
        console=console,
    )  # fmt: skip
    first = read_detections_json(tmp_path / "run" / "detections.json")
    again = read_detections_json(file)
    for one, other in zip(first.detections, again.detections, strict=True):
        assert one.scores.tolist() == other.scores.tolist()


@pytest.mark.usefixtures("compared")
def test_the_proposals_of_a_run_can_be_judged(root, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    out = tmp_path / "rpn.npz"
    method = f"rpn:{root / 'out' / 'faster'}"
    options = {"split": "test", "method": method, "console": console}
    run_proposals(root / "shapes", out, **options)
    found = read_proposals(out)
    assert found.settings["method"] == "rpn"
    assert 0 < found.counts.max() <= 12
    assert "MABO" in console.file.getvalue()
    with pytest.raises(DetectError, match="expected no parameters, found min_size=3"):
        run_proposals(root / "shapes", out, settings=["min_size=3"], **options)


@pytest.mark.usefixtures("compared")
def test_a_run_of_another_detector_has_no_proposals(root):
    with pytest.raises(DetectError, match="expected a run of a faster_rcnn, found one of a yolo"):
        build_source(f"rpn:{root / 'out' / 'yolo'}", {})
    with pytest.raises(DetectError, match="nowhere: expected a checkpoint"):
        build_source("rpn:nowhere", {})
    with pytest.raises(DetectError, match=r"proposal_options\.min_size"):
        build_source(f"rpn:{root / 'out' / 'faster'}", {"min_size": 3})
