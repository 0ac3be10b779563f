from datetime import datetime

from detect.forecast import Forecast, in_turn


class Clock:
    """Seconds, and the time of a day on which it is 15:30 at 0."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(datetime(2024, 5, 7, 15, 30).timestamp() + self.seconds)


def test_time_left_follows_from_the_part_that_is_done():
    clock = Clock()
    forecast = Forecast(12, clock=clock, now=clock.now)
    assert forecast.seconds_left(0) is None
    assert forecast.in_words(0) == ""
    clock.seconds = 70
    assert forecast.seconds_left(1) == 770
    assert forecast.in_words(1) == "about 14 min in all, done at 15:44"
    clock.seconds = 360
    assert forecast.in_words(6) == "about 6 min left, done at 15:42"
    clock.seconds = 714
    assert forecast.in_words(11.9) == "a few seconds left, done at 15:42"
    assert forecast.in_words(12) == ""


def test_what_was_done_before_took_no_time():
    clock = Clock()
    forecast = Forecast(100, 90, clock=clock, now=clock.now)
    assert forecast.seconds_left(90) is None
    clock.seconds = 30
    assert forecast.in_words(95) == "about 30 s left, done at 15:31"


def test_another_day_is_named():
    clock = Clock()
    forecast = Forecast(10, clock=clock, now=clock.now)
    clock.seconds = 6 * 3600
    assert forecast.in_words(1) == "about 60 h in all, done at Fri 03:30"


def test_parts_are_listed_first_and_timed_after_each():
    clock, said = Clock(), []
    parts = {"runs/a": 1, "runs/b": 2, "runs/c": 3}
    taken = []
    for name, part in in_turn(parts, "runs to judge", said.append, clock=clock, now=clock.now):
        taken.append((name, part))
        if name == "runs/a":
            assert said == ["3 runs to judge:", "  1. runs/a", "  2. runs/b", "  3. runs/c"]
            said.clear()
        clock.seconds += 60 * part
    assert taken == list(parts.items())
    assert said == [
        "1 of 3 done: about 3 min in all, done at 15:33",
        "2 of 3 done: about 1 min 30 s left, done at 15:34",
    ]


def test_parts_may_take_longer_than_others():
    clock, said = Clock(), []
    for _, images in in_turn(
        {"val": 100, "test": 900}, "splits", said.append, size=float, clock=clock, now=clock.now
    ):
        clock.seconds += images
    assert said[3:] == ["1 of 2 done: about 17 min in all, done at 15:46"]


def test_one_part_is_not_announced():
    said = []
    assert list(in_turn({"runs/a": 1}, "runs", said.append)) == [("runs/a", 1)]
    assert said == []
