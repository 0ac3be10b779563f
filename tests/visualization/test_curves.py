import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from detect.errors import DetectError
from detect.visualization import curves, draw_curves


def train(step: int, loss: float | None = 1.0, phase: str = "train", **more) -> dict:
    line = {"kind": "train", "phase": phase, "epoch": 1, "step": step, "loss": loss}
    return line | {"terms": {"box": 0.4, "class": 0.6}, "learning_rate": 0.01} | more


def evaluation(step: int, value: float, phase: str = "train") -> dict:
    line = {"kind": "evaluation", "phase": phase, "epoch": 1, "step": step}
    return line | {"map_area": value, "map_11point": value / 2}


def write(path: Path, lines: list[dict], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, to look at what they show."""
    saved: list[Figure] = []
    save = curves.save_figure

    def save_and_keep(figure, out):
        save(figure, out)
        saved.append(figure)

    monkeypatch.setattr(curves, "save_figure", save_and_keep)
    return saved


def lines_of(axes) -> dict[str, list[tuple[list[float], list[float]]]]:
    """The drawn lines by label, each as its points (x, y)."""
    by_label: dict[str, list[tuple[list[float], list[float]]]] = {}
    for line in axes.lines:
        points = (list(line.get_xdata()), list(line.get_ydata()))
        by_label.setdefault(line.get_label(), []).append(points)
    return by_label


def read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


# --- curves of a run -----------------------------------------------------------------------------


def test_panels_show_the_metrics(tmp_path, figures):
    lines = [train(25, 3.0), train(50, 2.0, learning_rate=0.005), evaluation(50, 0.4)]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    loss, mean_average_precision, rate = figures[0].axes
    assert lines_of(loss) == {
        "total": [([25, 50], [3.0, 2.0])],
        "box": [([25, 50], [0.4, 0.4])],
        "class": [([25, 50], [0.6, 0.6])],
    }
    assert lines_of(mean_average_precision) == {
        "mAP, area": [([50], [0.4])],
        "mAP, 11-point": [([50], [0.2])],
    }
    assert [points for drawn in lines_of(rate).values() for points in drawn] == [
        ([25, 50], [0.01, 0.005])
    ]
    image = read_image(tmp_path / "curves.png")
    assert image.shape[0] > 600
    assert image.std() > 10
    assert len(list(tmp_path.iterdir())) == 2, "a temporary file was left"


def test_same_metrics_same_bytes(tmp_path):
    metrics_file = write(tmp_path / "metrics.jsonl", [train(1, 2.0), train(2, 1.0)])
    draw_curves(metrics_file, tmp_path / "a.png")
    draw_curves(metrics_file, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("restarts", [True, False])
def test_phases_follow_each_other(tmp_path, figures, restarts):
    start = 0 if restarts else 20
    lines = [train(10), train(20), evaluation(20, 0.3)]
    lines += [train(start + step, phase="regress", terms={"box": 1.0}) for step in (10, 20)]
    lines += [evaluation(start + 20, 0.5, "regress")]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    loss, mean_average_precision, _ = figures[0].axes
    assert [x for x, _ in lines_of(loss)["total"]] == [[10, 20], [30, 40]]
    assert [x for x, _ in lines_of(mean_average_precision)["mAP, area"]] == [[20], [40]]
    for axes in figures[0].axes:
        borders = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in borders] == [20]
    assert [text.get_text().strip() for text in loss.texts] == ["train", "regress"]
    legend = [text.get_text() for text in loss.get_legend().get_texts()]
    assert legend == ["total", "box", "class"]


def test_a_phase_without_steps_is_judged_where_the_one_before_ended(tmp_path, figures):
    lines = [train(10), train(20), evaluation(20, 0.3), evaluation(20, 0.5, "svms")]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    _, mean_average_precision, _ = figures[0].axes
    drawn = lines_of(mean_average_precision)["mAP, area"]
    assert [x for x, _ in drawn] == [[20], [20]]


def test_repeated_steps_are_drawn_as_they_came_out_last(tmp_path, figures):
    first = [train(step, 9.0) for step in (1, 2, 3, 4)] + [evaluation(4, 0.1)]
    again = [train(step, 5.0) for step in (3, 4, 5)] + [evaluation(4, 0.2), evaluation(6, 0.3)]
    draw_curves(write(tmp_path / "metrics.jsonl", first + again), tmp_path / "curves.png")
    loss, mean_average_precision, _ = figures[0].axes
    assert lines_of(loss)["total"] == [([1, 2, 3, 4, 5], [9.0, 9.0, 5.0, 5.0, 5.0])]
    assert lines_of(mean_average_precision)["mAP, area"] == [([4, 6], [0.2, 0.3])]


@pytest.mark.parametrize(
    "tail", ['{"kind": "tra', '{"kind": "train", "phase": "train"}\n', "\xff\n", "[1]\n"]
)
def test_a_torn_line_is_left_out_and_said(tmp_path, figures, tail):
    metrics_file = write(tmp_path / "metrics.jsonl", [train(1), train(2)], tail)
    draw_curves(metrics_file, tmp_path / "curves.png")
    assert lines_of(figures[0].axes[0])["total"][0][0] == [1, 2]
    assert "1 unreadable line" in figures[0].get_supxlabel()


def test_nothing_is_said_where_every_line_is_read(tmp_path, figures):
    lines = [train(1), {"kind": "note", "text": "of another kind"}, train(2)]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    assert figures[0].get_supxlabel() == ""


@pytest.mark.parametrize(("last", "scale"), [(0.1, "log"), (2.0, "linear"), (0.0, "linear")])
def test_loss_scale(tmp_path, figures, last, scale):
    lines = [train(1, 10.0), train(2, 5.0), train(3, last)]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    assert figures[0].axes[0].get_yscale() == scale


def test_losses_that_are_no_numbers_leave_gaps(tmp_path, figures):
    lines = [train(1, 2.0), train(2, None), train(3, math.nan), train(4, math.inf), train(5, 1.0)]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    ((_, losses),) = lines_of(figures[0].axes[0])["total"]
    assert np.isfinite(losses).tolist() == [True, False, False, False, True]


def test_many_points_are_smoothed_with_the_raw_values_behind(tmp_path, figures):
    values = [1.0 + (step % 2) for step in range(300)]
    lines = [train(step, value, terms={}) for step, value in enumerate(values)]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    drawn = lines_of(figures[0].axes[0])
    smooth = np.array(drawn.pop("total")[0][1])
    assert np.abs(smooth - 1.5).max() < 0.25
    ((_, raw),) = next(iter(drawn.values()))
    assert raw == values


@pytest.mark.parametrize("lines", [[train(5)], [evaluation(5, 0.2)], [train(5, terms={})]])
def test_a_run_that_has_just_begun(tmp_path, lines):
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png")
    assert read_image(tmp_path / "curves.png").std() > 1


def test_faults_of_the_file_are_named(tmp_path):
    with pytest.raises(DetectError, match=r"absent\.jsonl: cannot be read: No such file"):
        draw_curves(tmp_path / "absent.jsonl", tmp_path / "curves.png")
    for content in ("", "\n", "not metrics\n", '{"kind": "note"}\n'):
        (tmp_path / "metrics.jsonl").write_text(content)
        with pytest.raises(DetectError, match=r"metrics\.jsonl: expected lines of metrics"):
            draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    write(tmp_path / "metrics.jsonl", [train(1)])
    with pytest.raises(DetectError, match=r"curves\.xyz: expected a file with the suffix"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
