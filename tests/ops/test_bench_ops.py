import importlib.util

import pytest
import torch

from tests.conftest import REPOSITORY


@pytest.fixture
def bench_ops():
    spec = importlib.util.spec_from_file_location("bench_ops", REPOSITORY / "tools/bench_ops.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_of_small_sizes(bench_ops, monkeypatch):
    monkeypatch.setattr(bench_ops, "IOU_SIZES", ((10, 5),))
    monkeypatch.setattr(bench_ops, "PAIR_SIZES", (50,))
    monkeypatch.setattr(bench_ops, "NMS_SIZES", ((2, 30, 3),))
    figures = bench_ops.bench_iou("cpu", 2) + bench_ops.bench_nms("cpu", 2)
    assert [row["name"] for row in figures] == ["box_iou", "iou_at_least"] + ["grouped_nms"] * 2
    for row in figures:
        assert row["ratio"] == pytest.approx(row["ours_median_s"] / row["rival_median_s"])
        assert set(row) > {"sizes", "rival", "spread"}
    bench_ops.print_figures(figures)


def test_contenders_whose_results_differ_are_not_timed(bench_ops):
    with pytest.raises(SystemExit, match="the results differ from those of the other"):
        bench_ops.compared("one", {}, lambda: torch.ones(1), "the other", lambda: torch.zeros(1), 1)
