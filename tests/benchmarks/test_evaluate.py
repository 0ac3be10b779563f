import json
import re

import numpy as np
import pytest
import torch

from detect.benchmarks import bench_evaluate, missing_rivals, named_benchmarks, rivals
from detect.benchmarks.devkit_loop import devkit_map
from detect.benchmarks.evaluate import CONTENDERS, _check_equal
from detect.benchmarks.scene import draw_scene
from detect.benchmarks.timing import row_of, time_in_turn
from detect.cli import main
from detect.errors import DetectError
from detect.evaluation import VOCEvaluator
from detect.structures import Detections, GroundTruth
from detect.version import install_command
from tests.evaluation.voc_cases import Case, slow_average_precisions, slow_class

CPU = torch.device("cpu")
needs_rivals = pytest.mark.skipif(
    bool(missing_rivals()), reason=f"not installed: {', '.join(missing_rivals())}"
)


def test_a_scene_is_seeded_and_realistic():
    scene, again = draw_scene(200, 50, 5), draw_scene(200, 50, 5)
    for name in ("truth_boxes", "found_boxes", "scores", "found_labels"):
        assert np.array_equal(getattr(scene, name), getattr(again, name))
    assert not np.array_equal(scene.scores, draw_scene(200, 50, 5, seed=1).scores)
    assert np.bincount(scene.found_images).tolist() == [50] * 200
    assert len(np.unique(scene.scores)) == len(scene.scores)
    assert 500 < len(scene.truth_labels) < 700
    records = scene.records(CPU, as_corners=True)
    evaluator = VOCEvaluator(scene.class_names)
    evaluator.update(*records)
    assert 0.2 < evaluator.compute().map_area < 0.9
    areas = scene.truth_boxes[:, 2] * scene.truth_boxes[:, 3]
    sizes = np.digitize(areas, (32**2, 96**2))
    assert (np.bincount(sizes) > 20).all()  # small, medium and large ones
    assert scene.crowds.any()


def test_both_forms_of_the_records_are_the_same_boxes():
    scene = draw_scene(20, 10, 3)
    for corners, sizes in zip(
        scene.records(CPU, as_corners=True), scene.records(CPU, as_corners=False), strict=True
    ):
        assert len(corners) == len(sizes) == 20
        for one, other in zip(corners, sizes, strict=True):
            boxes = other["boxes_xywh"].clone()
            boxes[:, 2:] += boxes[:, :2]
            assert torch.equal(one["boxes"].double(), boxes)  # exact as float32
    few = scene.first_images(7)
    assert (few.num_images, int(few.found_images.max())) == (7, 6)


def test_the_loop_is_that_of_the_devkit():
    scene = draw_scene(60, 10, 3)
    found, truths = scene.records(CPU, as_corners=True)
    case = Case(
        scene.class_names,
        [Detections.sorted(row["boxes"], row["scores"], row["labels"]) for row in found],
        [GroundTruth(row["boxes"], row["labels"], row["difficult"]) for row in truths],
    )
    expected = np.array(
        [slow_average_precisions(*slow_class(case, label, 0.5)) for label in range(3)]
    ).mean(axis=0)
    assert devkit_map(scene) == pytest.approx(expected.tolist(), abs=1e-12)


def test_contenders_take_turns():
    calls = []
    times = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, CPU)
    assert calls == ["a", "b", "a", "b"]
    assert [len(values) for values in times.values()] == [2, 2]
    row = row_of("task", "sizes", [1.0, 3.0, 2.0], "rival", [4.0, 4.0, 8.0])
    assert (row["ours_median_s"], row["rival_median_s"], row["ratio"]) == (2.0, 4.0, 0.5)
    assert row["spread"] == {"ours_s": [1, 3], "rival_s": [4, 8], "ratio": [0.25, 0.75]}
    assert row_of("task", "sizes", [1.0])["ratio"] is None


def test_different_results_end_the_benchmark():
    _check_equal("rival", [0.5, float("nan")], [0.5 + 1e-13, -1.0], 1e-12)
    with pytest.raises(DetectError, match=r"number 2 is 0.5 by ours and 0.6 by rival"):
        _check_equal("rival", [0.5, 0.5], [0.5, 0.6], 1e-12)
    with pytest.raises(DetectError, match=r"number 1 is nan by ours and 0.5 by rival"):
        _check_equal("rival", [float("nan")], [0.5], 1e-12)


def test_a_missing_rival_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(rivals.RIVALS, "no_such_library", "no-such-library")
    with pytest.raises(
        DetectError, match=rf"no-such-library, .*{re.escape(install_command('bench'))}"
    ):
        bench_evaluate(2, 2, 2)


def test_an_unknown_benchmark_is_named():
    assert set(named_benchmarks("all")) >= {"evaluate"}
    with pytest.raises(DetectError, match="did you mean 'evaluate'"):
        named_benchmarks("evaluat")


@needs_rivals
@pytest.mark.parametrize("name", ["pycocotools", "faster-coco-eval", "torchmetrics"])
def test_rivals_agree_with_ours(name):
    scene = draw_scene(30, 15, 4)
    numbers = {
        one: list(values.values() if isinstance(values, dict) else values)
        for one in ("ours COCO", name)
        for values in [CONTENDERS[one].run(scene, CONTENDERS[one].prepare(scene, CPU))]
    }
    assert len(numbers[name]) == 12
    _check_equal(name, numbers["ours COCO"], numbers[name], 1e-6)


def test_help_names_all_benchmarks(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    words = re.findall(r"\w+", capsys.readouterr().out.partition("Options")[0])
    assert {*named_benchmarks("all"), "all"} <= set(words)


@needs_rivals
def test_the_command_on_a_tiny_set(capsys, tmp_path):
    path = tmp_path / "bench.json"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "evaluate", "--small", "--repeats", "1", "--json", str(path)])
    printed = capsys.readouterr().out
    assert (ended.value.code or 0) == 0, printed
    assert "say nothing about speed" in printed
    assert f"Report: {path}" in printed.splitlines()
    rows = json.loads(path.read_text())["benchmarks"]["evaluate"]
    assert {row["rival"] for row in rows} >= {"pycocotools", "faster-coco-eval", "torchmetrics"}
    assert all(row["ours_median_s"] > 0 for row in rows)


@needs_rivals
@pytest.mark.slow
def test_peak_memory_is_measured_in_fresh_processes():
    rows = bench_evaluate(40, 100, 5, repeats=1)
    measured = [row for row in rows if "rival_peak_mib" in row]
    assert len(measured) == 4
    beside_pycocotools = next(row for row in measured if row["rival"] == "pycocotools")
    assert beside_pycocotools["rival_peak_mib"] > beside_pycocotools["ours_peak_mib"] > 0
