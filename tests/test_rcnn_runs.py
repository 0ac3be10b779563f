"""Runs of R-CNN as users make them: phases that are killed, parts switched off, the table."""

import io
import json
import shutil

import pytest
from rich.console import Console
from torch.testing import assert_close

from detect.cli.ablation import run_ablation
from detect.cli.evaluate import run_evaluation
from detect.config import resolve
from detect.data import read_image
from detect.detectors.rcnn import detector as module
from detect.detectors.rcnn import features, training_regions
from detect.errors import DetectError
from detect.experiment.model import load
from detect.experiment.training import train
from detect.settings import Settings
from detect.training import load_checkpoint, read_journal

TRAINING = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01}


class Killed(BaseException):
    """Ends a run where a power cut would."""


def config_of(root, **changes):
    data = {
        "kind": "shapes",
        "root": str(root / "shapes"),
        "num_images": 20,
        "image_size": 64,
        "augmentation": None,
        "num_workers": 0,
        "cache": str(root / "cache"),
    }
    detector = {
        "name": "rcnn",
        "input_size": 64,
        "context": 4,
        "proposals": "random-boxes",
        "proposal_options": {"count": 60},
        "windows_per_step": 16,
        "regression_iou": 0.3,  # random boxes are seldom better
        "score_threshold": -9.0,  # what was hardly trained is sure of nothing
        **changes,
    }
    values = {"data": data, "detector": detector, "training": TRAINING}
    return resolve(Settings(values, {}), "this test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("rcnn")


@pytest.fixture(scope="module")
def whole(root):
    """The undisturbed run."""
    folder = root / "whole"
    evaluation = train(config_of(root), folder, device="cpu")
    assert evaluation is not None
    return folder


def weights_of(folder):
    return load_checkpoint(folder / "checkpoints" / "best.pt")["detector"]


def kill(*_):
    raise Killed


def kill_at_image(number):
    """Ends a run while it writes the features of an image."""
    embed_rows = features.embed_rows
    count = [0]

    def embed(batch, chosen, embed):
        count[0] += 1
        if count[0] == number:
            kill()
        return embed_rows(batch, chosen, embed)

    return embed


def kill_at_step(number):
    """Ends a run in a step of fine-tuning."""
    sample_windows, count = module.RCNN._sample_windows, [0]

    def sample(detector, batch):
        count[0] += 1
        if count[0] == number:
            kill()
        return sample_windows(detector, batch)

    return sample


@pytest.mark.parametrize("phase", ["finetune", "features", "svms", "box_regression"])
def test_a_run_that_is_killed_ends_as_an_undisturbed_one(phase, root, whole, tmp_path, monkeypatch):
    config = config_of(root)
    with monkeypatch.context() as patch:
        if phase == "finetune":
            patch.setattr(module.RCNN, "_sample_windows", kill_at_step(5))  # in the second epoch
        elif phase == "features":
            patch.setattr(features, "WRITE_INTERVAL", 0)
            patch.setattr(features, "embed_rows", kill_at_image(7))
        elif phase == "svms":
            patch.setattr(training_regions, "mine_svms", kill)
        else:
            patch.setattr(module, "fit_box_regressors", kill)
        with pytest.raises(Killed):
            train(config, tmp_path / "run", device="cpu")
    finished = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["training"]
    order = ["finetune", "features", "svms", "box_regression"]
    assert finished["position"]["finished_phases"] == order[: order.index(phase)]
    evaluation = train(config, tmp_path / "run", resume=True, device="cpu")
    for name, value in weights_of(whole).items():
        assert_close(value, weights_of(tmp_path / "run")[name], rtol=0, atol=0)
    report = json.loads((whole / "evaluation.json").read_text())
    assert evaluation.report.map_area == report["map_area"]
    assert not list((root / "cache").glob("regions-*"))


def test_the_size_of_the_proposals_is_written_once(root, tmp_path, monkeypatch):
    config = config_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(module.RCNN, "_sample_windows", kill_at_step(1))  # there is no state yet
        with pytest.raises(Killed):
            train(config, tmp_path / "run", device="cpu")
    train(config, tmp_path / "run", resume=True, device="cpu")
    lines = read_journal(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "proposals"] == [0]


def test_a_run_that_is_killed_in_the_middle_of_its_features_uses_what_is_there(
    root, whole, tmp_path, monkeypatch
):
    config = config_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(features, "WRITE_INTERVAL", 0)
        patch.setattr(features, "embed_rows", kill_at_image(7))
        with pytest.raises(Killed):
            train(config, tmp_path / "run", device="cpu")
    (kept,) = (root / "cache").glob("regions-*")
    assert json.loads((kept / "progress.json").read_text()) == {"num_images": 6}
    # a changed setting takes nothing from there
    other = config_of(root, context=5)
    with monkeypatch.context() as patch:
        patch.setattr(training_regions, "mine_svms", kill)
        with pytest.raises(Killed):
            train(other, tmp_path / "other", device="cpu")
    folders = sorted((root / "cache").glob("regions-*"))
    assert len(folders) == 2
    embed_rows, count = features.embed_rows, []

    def counting(*arguments):
        count.append(1)
        return embed_rows(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features, "embed_rows", counting)
        train(config, tmp_path / "run", resume=True, device="cpu")
    num_images = len((root / "shapes/ImageSets/Main/train.txt").read_text().split())
    assert len(count) == num_images - 6
    for name, value in weights_of(whole).items():
        assert_close(value, weights_of(tmp_path / "run")[name], rtol=0, atol=0)
    train(other, tmp_path / "other", resume=True, device="cpu")


def test_a_budget_too_small_stops_and_can_be_raised(root, whole, tmp_path):
    with pytest.raises(DetectError, match=r"feature_budget is 0\.00 GB; raise"):
        train(config_of(root, feature_budget=1e-6), tmp_path / "run", device="cpu")
    train(config_of(root), tmp_path / "run", resume=True, device="cpu")
    for name, value in weights_of(whole).items():
        assert_close(value, weights_of(tmp_path / "run")[name], rtol=0, atol=0)


def test_parts_are_switched_off_where_a_run_is_judged(whole, tmp_path):
    console = Console(quiet=True)
    maps = {}
    for name, overrides in {
        "all": [],
        "no boxes": ["detector.box_regression=false"],
        "softmax": ["detector.svm=false", "detector.box_regression=false"],
    }.items():
        file = tmp_path / f"{name}.json"
        run_evaluation(
            [whole], overrides, json_file=file, save=tmp_path / "d.json", device="cpu",
            console=console,
        )  # fmt: skip
        maps[name] = json.loads(file.read_text())["map_area"]
    assert maps["all"] == json.loads((whole / "evaluation.json").read_text())["map_area"]
    assert len(set(maps.values())) == 3


def test_what_was_not_trained_cannot_be_switched_on(root, tmp_path):
    train(config_of(root, svm=False), tmp_path / "run", device="cpu")
    load(tmp_path / "run", "cpu")
    with pytest.raises(DetectError, match=r"its SVMs have not been trained: go on with the"):
        load(tmp_path / "run", "cpu", ["detector.svm=true"])
    with pytest.raises(
        DetectError, match=r"the model is another one than the settings detector\.f"
    ):
        load(tmp_path / "run", "cpu", ["detector.feature_layer=trunk"])


def test_an_image_is_looked_at_as_a_file_and_as_an_array(root, whole):
    model = load(whole, "cpu")
    image = next((root / "shapes" / "JPEGImages").iterdir())
    one = model.predict(image, score_threshold=-9)
    assert len(one) > 0
    # random boxes depend on the name of the image, which an array has not
    again, array = model.predict([image, read_image(image)], score_threshold=-9)
    assert_close(again.boxes, one.boxes)
    assert len(array) > 0


def test_joints_are_no_data_for_proposals(tmp_path):
    config = config_of(tmp_path)
    data = config.data.model_copy(update={"kind": "figures", "root": str(tmp_path / "figures")})
    with pytest.raises(DetectError, match="rcnn looks for proposals in whole images with boxes"):
        train(config.model_copy(update={"data": data}), tmp_path / "run", device="cpu")


CONFIG = """
data: {{kind: shapes, root: {root}/shapes, num_images: 20, image_size: 64, augmentation: null,
  num_workers: 0, cache: {root}/cache}}
detector: {{name: {name}}}
training: {{epochs: 1, batch_size: 4}}
"""


def test_the_table_of_the_parts(root, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(CONFIG.format(root=root, name="rcnn"))
    overrides = [
        "detector.input_size=64",
        "detector.context=4",
        "detector.proposals=random-boxes",
        "detector.proposal_options={count: 30}",
        "detector.windows_per_step=16",
        "detector.score_threshold=-9",
    ]
    console = Console(record=True, width=120, file=io.StringIO())
    run_ablation(file, overrides, tmp_path / "table", device="cpu", console=console)
    rows = json.loads((tmp_path / "table" / "ablation.json").read_text())
    assert [(row["layer"], row["finetuned"], row["scores"]) for row in rows] == [
        ("trunk", False, "SVM"),
        ("head", False, "SVM"),
        ("trunk", True, "SVM"),
        ("head", True, "SVM"),
        ("head", True, "softmax"),
    ]
    text = console.export_text()
    assert "pool5 (trunk)" in text
    assert "with box regression" in text
    tuned, other = (
        load_checkpoint(tmp_path / "table" / name / "checkpoints" / "best.pt")["detector"]
        for name in ("head-finetuned", "trunk-finetuned")
    )
    name = "backbone.trunk.0.0.weight"
    assert_close(tuned[name], other[name], rtol=0, atol=0)
    # what is there is not done again
    again = Console(record=True, width=120, file=io.StringIO())
    run_ablation(file, overrides, tmp_path / "table", device="cpu", console=again)
    assert "Trained in" not in again.export_text()
    with pytest.raises(DetectError, match=r"(?s)head-finetuned.*training.epochs: 1 before, 2 now"):
        run_ablation(
            file, [*overrides, "training.epochs=2"], tmp_path / "table", device="cpu", console=again
        )
    # all are checked before the first is trained
    late = tmp_path / "late" / "trunk-finetuned"
    shutil.copytree(tmp_path / "table" / "trunk-finetuned", late)
    with pytest.raises(DetectError, match=r"(?s)late/trunk-finetuned.*initial_weights: "):
        run_ablation(file, overrides, late.parent, device="cpu", console=again)
    assert list(late.parent.iterdir()) == [late]


def test_the_table_is_of_rcnn_alone(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(CONFIG.format(root=tmp_path, name="yolo"))
    with pytest.raises(DetectError, match=r"expected detector\.name rcnn, found 'yolo'"):
        run_ablation(file, [], tmp_path / "table", device="cpu", console=Console(quiet=True))
