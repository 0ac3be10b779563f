"""A run is judged by mAP and by whatever its detector asks for, of one's own too."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from rich.table import Table

from detect.config import resolve
from detect.data import draw_shapes, read_dataset
from detect.errors import DetectError
from detect.experiment.evaluation import evaluate
from detect.experiment.model import build_detector
from detect.registry import Registry
from detect.settings import Settings

CPU = torch.device("cpu")


@dataclass(frozen=True)
class CountReport:
    num_boxes: int

    def scores(self):
        return {"boxes": float(self.num_boxes)}

    def as_dict(self):
        return {"num_boxes": self.num_boxes}

    def tables(self):
        return [Table("boxes")]


class BoxCounter:
    name: ClassVar[str] = "count"

    def __init__(self):
        self.num_boxes = 0

    def update(self, detections, truths):
        self.num_boxes += sum(map(len, detections)) + 1000 * sum(map(len, truths))

    def compute(self):
        return CountReport(self.num_boxes)


@pytest.fixture
def case(tmp_path):
    draw_shapes(tmp_path, 8, seed=3, image_size=(64, 64))
    values = {
        "data": {"kind": "voc", "root": str(tmp_path), "classes": "auto", "num_workers": 0},
        "backbone": {"name": "tiny"},
        "detector": {"name": "yolo", "input_size": 64, "hidden_features": 32},
    }
    config = resolve(Settings(values, {}), "test")
    dataset = read_dataset(tmp_path, "trainval", verify_images=False)
    return build_detector(config, len(dataset.class_names)), dataset, config


def test_an_evaluator_of_ones_own(case, monkeypatch):
    detector, dataset, config = case
    known = Registry("evaluator")
    known.register("count")(lambda *_: BoxCounter())
    known.register("nothing")(lambda *_: None)  # what it needs is not in the data
    monkeypatch.setattr("detect.experiment.evaluation.EVALUATORS", known)
    detector.metrics = ("count", "nothing")
    evaluation = evaluate(detector, dataset, config, CPU)
    found = sum(map(len, evaluation.detections.detections))
    expected = found + 1000 * sum(map(len, dataset.truths))
    assert evaluation.reports["count"].num_boxes == expected > 1000
    assert evaluation.scores() == {**evaluation.report.scores(), "boxes": expected}
    assert evaluation.as_dict() == {**evaluation.report.as_dict(), "count": {"num_boxes": expected}}
    assert len(evaluation.tables()) == 2


def test_an_unknown_evaluator_is_an_error(case):
    detector, dataset, config = case
    detector.metrics = ("poze",)
    with pytest.raises(DetectError, match="unknown evaluator 'poze'; did you mean 'pose'"):
        evaluate(detector, dataset, config, CPU)
