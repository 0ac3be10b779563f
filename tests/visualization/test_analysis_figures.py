"""The figures of the analyses: what they show, and that nothing in them covers anything."""

import math

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from detect.errors import DetectError
from detect.evaluation import (
    hoiem_groups,
    measure_calibration,
    measure_confusion,
    measure_detection_recall,
    measure_score_curves,
    tide_errors,
)
from detect.visualization import (
    confusion,
    detection_groups,
    draw_confusion,
    draw_hoiem,
    draw_precision_recall,
    draw_recall,
    draw_reliability,
    draw_score_curves,
    draw_tide,
    error_types,
    precision_recall,
    recall_curve,
    reliability,
    score_curves,
)
from detect.visualization.class_labels import class_labels
from tests.evaluation.flat_cases import flat_case

NUM_IMAGES = 30
MODULES = (confusion, detection_groups, error_types, precision_recall, recall_curve)
MODULES += (reliability, score_curves)


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, to look at what they show."""
    saved: list[Figure] = []
    for module in MODULES:
        save = module.save_figure

        def save_and_keep(figure, out, save=save):
            save(figure, out)
            saved.append(figure)

        monkeypatch.setattr(module, "save_figure", save_and_keep)
    return saved


def case_of(num_classes, seed=1):
    """Names, detections with scores in 0…1, and objects; one class is a class of two merged."""
    names, detections, objects = flat_case(seed, NUM_IMAGES, max(num_classes, 2))
    detections = detections._replace(scores=(detections.scores * 7 + 5) / 10)
    if num_classes == 1:
        order = detections.scores.argsort(descending=True)
        detections = type(detections)(*(column[order] for column in detections))
        detections = detections._replace(labels=detections.labels * 0)
        return names[:1], detections, objects._replace(labels=objects.labels * 0)
    return names, detections, objects


def draw_all(case, folder):
    names, detections, objects = case
    drawn = {
        "tide": (draw_tide, tide_errors(detections, objects, names)),
        "hoiem": (draw_hoiem, hoiem_groups(detections, objects, names)),
        "curves": (draw_score_curves, measure_score_curves(detections, objects, names)),
        "precision recall": (
            draw_precision_recall,
            measure_score_curves(detections, objects, names),
        ),
        "confusion": (draw_confusion, measure_confusion(detections, objects, names)),
        "reliability": (draw_reliability, measure_calibration(detections, objects, names)),
        "recall": (draw_recall, measure_detection_recall(detections, objects, NUM_IMAGES)),
    }
    for name, (draw, report) in drawn.items():
        draw(report, folder / f"{name}.png", "a title")
    return {name: report for name, (_, report) in drawn.items()}


def boxes_of(figure):
    """The rectangles in pixels of all panels with their labels, legends and the title."""
    figure.draw_without_rendering()
    parts = [*figure.axes, *figure.legends, *([figure._suptitle] if figure._suptitle else [])]
    return [part.get_window_extent() if part not in figure.axes else part.get_tightbbox()
            for part in parts]  # fmt: skip


@pytest.mark.parametrize("num_classes", [1, 20, pytest.param(80, marks=pytest.mark.slow)])
def test_nothing_covers_anything_or_is_cut_off(tmp_path, figures, num_classes):
    names, detections, objects = case_of(num_classes)
    long = [f"{name} of a very long $kind$ with_{'x' * 40}" for name in names]
    draw_all((long, detections, objects), tmp_path)
    assert len(figures) == 7
    for figure in figures:
        width, height = figure.canvas.get_width_height()
        boxes = boxes_of(figure)
        for row, box in enumerate(boxes):
            assert box.x0 >= -1, figure
            assert box.y0 >= -1, figure
            assert box.x1 <= width + 1, figure
            assert box.y1 <= height + 1, figure
            for other in boxes[:row]:
                common_width = min(box.x1, other.x1) - max(box.x0, other.x0)
                common_height = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(common_width, common_height) <= 1


def test_without_objects_or_detections(tmp_path, figures):
    names, detections, objects = case_of(3)
    nothing = type(detections)(*(column[:0] for column in detections))
    none = type(objects)(*(column[:0] for column in objects))
    for found, present in ((nothing, objects), (detections, none)):
        draw_all((names, found, present), tmp_path)
    assert len(figures) == 14
    assert all(cv2.imread(str(path)).std() > 1 for path in tmp_path.iterdir())


def test_what_the_figures_show(tmp_path, figures):
    case = case_of(3)
    reports = draw_all(case, tmp_path)
    tide, hoiem, curves, precision, matrix, diagram, recall = figures

    widths = [bar.get_width() for bar in tide.axes[0].patches]
    assert widths == pytest.approx(list(reports["tide"].delta.values()))
    counts = [bar.get_width() for bar in tide.axes[1].patches]
    assert counts == [sum(row) for row in reports["tide"].counts.values()]

    (legend,) = [axes.get_legend() for axes in hoiem.axes if axes.get_legend()]
    shares = reports["hoiem"].mean_shares
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [f"{group}  {share:.1%}" for group, share in shares.items()]

    pooled = reports["curves"].pooled
    panel = curves.axes[1]
    assert panel.get_ylabel() == "F1"
    (black,) = [line for line in panel.lines if line.get_label().startswith("all classes")]
    np.testing.assert_array_equal(black.get_xdata(), pooled.scores)
    np.testing.assert_array_equal(black.get_ydata(), pooled.f1)
    assert f"{pooled.best_score:.3g}" in panel.get_title()

    curves_of = reports["precision recall"]
    for axes, name, curve, average in zip(
        precision.axes, case[0], curves_of.classes, curves_of.average_precision, strict=False
    ):
        assert axes.get_title().startswith(f"{name}\nAP ")
        if curve.num_objects == 0:
            assert axes.get_title().endswith("—")
            assert [text.get_text() for text in axes.texts] == ["no objects"]
            continue
        assert axes.get_title().endswith(f"{average:.3f}")
        (line,) = axes.lines
        np.testing.assert_array_equal(line.get_xdata()[1:], curve.recall)
        np.testing.assert_array_equal(line.get_ydata()[1:], curve.precision)
        assert len(axes.collections) == 1  # the area

    shown = {text.get_position(): text.get_text() for text in matrix.axes[0].texts}
    rows = reports["confusion"].counts
    expected = {
        (column, row): str(count)
        for row, values in enumerate(rows)
        for column, count in enumerate(values)
        if count
    }
    assert shown == expected

    heights = [bar.get_height() for bar in diagram.axes[0].patches]
    assert heights == pytest.approx(np.nan_to_num(reports["reliability"].pooled.precision))
    (average,) = [
        line for line in recall.axes[0].lines if line.get_label().startswith("average recall")
    ]
    np.testing.assert_array_equal(average.get_ydata(), reports["recall"].average_recall)


def test_curves_of_many_points_are_thinned_but_keep_the_best(tmp_path, figures, monkeypatch):
    monkeypatch.setattr(score_curves, "MAX_POINTS", 4)
    names, detections, objects = case_of(3)
    report = measure_score_curves(detections, objects, names)
    draw_score_curves(report, tmp_path / "curves.png", "title")
    lines = [line for line in figures[0].axes[1].lines if len(line.get_xdata()) > 2]
    assert all(len(line.get_xdata()) <= 5 for line in lines)
    (black,) = [line for line in lines if line.get_label().startswith("all classes")]
    assert report.pooled.best_score in black.get_xdata()


def test_labels_of_classes():
    assert class_labels(["cat", "$x$", "_hidden", "a\nb", "x" * 30]) == [
        "cat",
        r"\$x\$",
        " _hidden",
        "a b",
        "x" * 21 + "…",
    ]


def test_a_file_of_another_kind_is_a_readable_error(tmp_path):
    report = tide_errors(*case_of(3)[1:], case_of(3)[0])
    assert not math.isnan(report.average_precision)
    with pytest.raises(DetectError, match=r"tide\.gif: expected a file with the suffix"):
        draw_tide(report, tmp_path / "tide.gif", "title")
