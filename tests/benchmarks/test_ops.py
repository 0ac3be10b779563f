import pytest
import torch

from detect.benchmarks import bench_iou, bench_nms, ops
from detect.errors import DetectError


def test_figures_of_small_sizes(monkeypatch):
    monkeypatch.setattr(ops, "IOU_SIZES", ((10, 5),))
    monkeypatch.setattr(ops, "PAIR_SIZES", (50,))
    monkeypatch.setattr(ops, "MILLION", 100)
    monkeypatch.setattr(ops, "NMS_SIZES", ((2, 30, 3),))
    rows = bench_iou("cpu", 1) + bench_nms("cpu", 1)
    assert [row["name"].split(",")[0] for row in rows] == [
        "box_iou", "iou_at_least", "iou_at_least", "grouped_nms", "grouped_nms",
    ]  # fmt: skip
    for row in rows:
        assert row["ours_median_s"] > 0
        assert (row["rival"] is None) == (row["ratio"] is None)


def test_unequal_results_are_not_timed(monkeypatch):
    monkeypatch.setattr(ops, "box_iou", lambda a, b: torch.zeros(len(a), len(b)))
    with pytest.raises(DetectError, match=r"box_iou, .* boxes: the results differ from"):
        bench_iou("cpu", 1, small=True)
