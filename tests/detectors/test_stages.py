"""Seconds of the parts of a detection, by a clock that only the test moves."""

from types import SimpleNamespace

import pytest

from detect.detectors import stages
from detect.detectors.stages import measured_stages, timed


class Clock:
    """Stands still until somebody works."""

    def __init__(self):
        self.now = 100.0
        self.was_read = 0

    def __call__(self):
        self.was_read += 1
        return self.now

    def work(self, name, seconds):
        with timed(name):
            self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stages, "_now", clock)
    return clock


def test_nothing_is_measured_outside(clock):
    clock.work("network", 3)
    with measured_stages() as seconds:
        pass
    clock.work("network", 5)
    assert seconds == {}
    assert clock.was_read == 0


def test_the_seconds_of_each_part_are_added_up(clock):
    with measured_stages() as seconds:
        clock.work("network", 3)
        clock.now += 100  # between the parts
        clock.work("proposals", 1)
        clock.work("network", 0.5)
        clock.work("post-processing", 0)
        assert seconds == {"network": 3.5, "proposals": 1, "post-processing": 0}
    clock.work("proposals", 7)
    assert seconds == {"network": 3.5, "proposals": 1, "post-processing": 0}


def test_each_measurement_begins_at_nothing(clock):
    for _ in range(2):
        with measured_stages() as seconds:
            clock.work("network", 2)
        assert seconds == {"network": 2}


def test_after_an_inner_measurement_the_outer_one_goes_on(clock):
    with measured_stages() as outer:
        clock.work("network", 1)
        with measured_stages() as inner:
            clock.work("network", 10)
        clock.work("network", 2)
    assert inner == {"network": 10}
    assert outer == {"network": 3}


def test_a_failure_ends_the_measurement(clock):
    seconds = {}

    def fail():
        nonlocal seconds
        with measured_stages() as seconds:
            clock.work("network", 1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.work("network", 2)
    assert seconds == {"network": 1}


def test_a_failure_inside_a_part_gets_out():
    with measured_stages(), pytest.raises(KeyError), timed("network"):
        raise KeyError
    with pytest.raises(KeyError), timed("network"):
        raise KeyError


def test_seconds_are_those_of_the_clock_on_the_wall(monkeypatch):
    readings = iter([5.0, 7.5])
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    with measured_stages() as seconds, timed("network"):
        pass
    assert seconds == {"network": 2.5}
