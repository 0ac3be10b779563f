import pytest

from detect.visualization import comparison


@pytest.mark.parametrize("seconds", [(0.2, 0.21), (0.004, 0.12), (1.0, 1.0)])
def test_numbers_stand_at_the_axis_of_times(seconds, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison, "save_figure", lambda figure, _: drawn.append(figure))
    runs = [(f"run {n}", 0.8, {"network": value}) for n, value in enumerate(seconds)]
    comparison.draw_comparison(runs, tmp_path / "comparison.png", "two runs")
    (figure,) = drawn
    figure.canvas.draw()
    axis = figure.axes[0].xaxis
    low, high = figure.axes[0].get_xlim()
    labels = [text.get_text() for text in axis.get_ticklabels()]
    at = [float(label) for label in labels if low <= float(label) <= high]
    assert len(at) >= 2
    assert at == sorted(set(at))
    assert not any(text.get_text() for text in axis.get_ticklabels(minor=True))
    assert low < 1000 * min(seconds)
    assert 1000 * max(seconds) < high
