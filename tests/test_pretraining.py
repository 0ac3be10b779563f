"""Training a classifier, and what detectors take from it."""

import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.cli import main
from detect.config import PretrainConfig, resolve_experiment
from detect.errors import DetectError
from detect.experiment.model import load
from detect.experiment.pretraining import pretrain, read_classification_splits
from detect.experiment.training import train
from detect.settings import Settings
from detect.training import load_checkpoint
from detect.training.descent import Descent

QUIET = Console(quiet=True)

SMALL = {
    "data": {
        "kind": "shapes",
        "num_images": 60,
        "image_size": 64,
        "num_workers": 0,
        "augmentation": None,
    },
    "backbone": {"name": "tiny"},
    "training": {
        "epochs": 1,
        "batch_size": 16,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "schedule": "one_cycle",
    },
}


def make_config(root, **changes):
    values = {section: dict(content) for section, content in SMALL.items()}
    values["data"]["root"] = str(root)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return resolve_experiment(Settings(values, {}), "test", PretrainConfig)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes") / "set"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes):
    """A run on a few images, with background, judged on these."""
    folder = tmp_path_factory.mktemp("run") / "run"
    config = make_config(
        shapes,
        data__background_per_image=1,
        data__val_split="train",
        data__test_split="train",
        training__epochs=12,
    )
    return config, folder, pretrain(config, folder)


def test_it_learns(trained):
    _, folder, report = trained
    assert report.class_names[-1] == "background"
    assert report.top1 >= 0.9  # seven classes; 0.14 by chance
    assert report.top5 >= report.top1
    written = json.loads((folder / "evaluation.json").read_text())
    assert written["top1"] == report.top1
    scores = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"top1", "top5"} <= set(next(line for line in scores if line["kind"] == "evaluation"))


def test_every_detector_takes_its_weights(trained):
    _, folder, _ = trained
    file = folder / "checkpoints" / "best.pt"
    remarks = []
    backbone = create_backbone("tiny", str(file), report=remarks.append)
    (remark,) = remarks
    assert "its last layer, for 7 classes, is left out" in remark
    saved = load_checkpoint(file)["classifier"]
    for key, value in backbone.state_dict().items():
        assert_close(value, saved[f"backbone.{key}"], rtol=0, atol=0)


def test_its_run_is_no_detector(trained):
    with pytest.raises(DetectError, match="expected a detector, found another model"):
        load(trained[1])


def test_a_killed_run_ends_in_the_same_weights(tmp_path, shapes):
    config = make_config(shapes, training__epochs=3)
    whole = tmp_path / "whole"
    pretrain(config, whole)
    halves = tmp_path / "halves"
    calls = []

    class KilledError(Exception):
        pass

    def after_two(self, *arguments):
        calls.append(1)
        if len(calls) > 14:
            raise KilledError
        return step(self, *arguments)

    step = Descent.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Descent, "step", after_two)
        with pytest.raises(KilledError):
            pretrain(config, halves)
    pretrain(config, halves, resume=True)
    first, second = (
        load_checkpoint(run / "checkpoints" / "last.pt")["classifier"] for run in (whole, halves)
    )
    for key, value in first.items():
        assert_close(second[key], value, rtol=0, atol=0)


def test_the_crops_are_those_of_the_config(shapes):
    plain = read_classification_splits(make_config(shapes), QUIET)
    more = read_classification_splits(
        make_config(shapes, data__context=0.5, data__background_per_image=2), QUIET
    )
    count = len(plain["train_split"])
    assert (more["train_split"].sizes[:10] >= plain["train_split"].sizes[:10]).all()
    assert more["train_split"].class_names == (*plain["train_split"].class_names, "background")
    assert len(more["train_split"]) + more["train_split"].num_unplaced == count + 2 * 36


def save_image(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 60, (40, 40, 3))
    Image.fromarray((noise + np.array(color)).astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    for split, count in (("train", 12), ("val", 4)):
        for name, color in (("red", (180, 0, 0)), ("blue", (0, 0, 180)), ("gray", (90, 90, 90))):
            for number in range(count):
                save_image(tmp_path / "colors" / split / name / f"{number}.png", color)
    return tmp_path / "colors"


def test_a_folder_for_each_class(tmp_path, folders):
    config = make_config(
        folders,
        data__kind="folders",
        data__test_split=None,
        data__input_size=32,
        training__epochs=8,
        training__batch_size=6,
    )
    report = pretrain(config, tmp_path / "run")
    assert report.class_names == ("blue", "gray", "red")
    assert report.num_images == 12
    assert report.top1 == 1.0


def test_faults_of_all_folders_come_together(tmp_path, folders):
    (folders / "train" / "red" / "broken.png").write_text("no image")
    save_image(folders / "val" / "green" / "1.png", (0, 200, 0))
    config = make_config(folders, data__kind="folders", data__test_split=None)
    with pytest.raises(DetectError) as caught:
        pretrain(config, tmp_path / "run")
    message = str(caught.value)
    assert "broken.png" in message
    assert "green" not in message  # its class names are those of the training split, once it stands
    (folders / "train" / "red" / "broken.png").unlink()
    with pytest.raises(DetectError, match="green"):
        pretrain(config, tmp_path / "run")


def test_the_command(tmp_path, shapes, capsys):
    text = f"""
data: {{kind: shapes, root: {shapes}, num_images: 60, image_size: 64, num_workers: 0}}
backbone: {{name: tiny}}
training: {{epochs: 1, batch_size: 16}}
"""
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SystemExit) as exit_info:
        main(["pretrain", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")])
    assert exit_info.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "Top-1 accuracy" in printed
    assert "backbone.weights=" in printed
    assert (tmp_path / "run" / "curves.png").is_file()
    with pytest.raises(SystemExit) as exit_info:
        main(["train", str(tmp_path / "config.yaml"), "data.kind=folders"])
    assert exit_info.value.code == 2


def test_a_detector_starts_from_it(tmp_path, shapes, trained):
    from detect.config import resolve

    values = {
        "data": {**SMALL["data"], "root": str(shapes)},
        "backbone": {
            "name": "tiny",
            "weights": str(trained[1] / "checkpoints" / "best.pt"),
            "freeze": ["trunk"],
        },
        "detector": {"name": "yolo", "variant": "modern", "head": "convolutional",
                     "input_size": 64, "hidden_features": 8},
        "training": {"epochs": 1, "batch_size": 8},
    }  # fmt: skip
    train(resolve(Settings(values, {}), "test"), tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["detector"]
    source = load_checkpoint(trained[1] / "checkpoints" / "best.pt")["classifier"]
    trunk = [key for key in saved if key.startswith("backbone.trunk.")]
    assert trunk
    for key in trunk:
        assert_close(saved[key], source[key], rtol=0, atol=0)
