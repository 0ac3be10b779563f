import dataclasses

import pytest

from detect.errors import DetectError
from detect.training import GradientSettings


def test_the_defaults_are_legal_and_cannot_be_changed():
    settings = GradientSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.epochs = 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *[(key, 0, "1 or more") for key in ("epochs", "batch_size", "evaluate_every")],
        ("log_interval", -3, "1 or more"),
        *[(key, 0.0, "more than 0") for key in ("learning_rate", "gamma", "warmup_factor")],
        ("gradient_clip", -1.0, "more than 0"),
        ("learning_rate", float("nan"), "more than 0"),
        ("weight_decay", -0.1, "0 or more"),
        ("warmup_epochs", -1.0, "0 or more"),
        ("warmup_epochs", float("nan"), "0 or more"),
        *[("momentum", value, "0 or more and less than 1") for value in (-0.1, 1.0, 1.5)],
    ],
)
def test_values_outside_their_range_are_named(key, value, expected):
    with pytest.raises(DetectError) as caught:
        GradientSettings(**{key: value})
    assert str(caught.value) == f"training.{key}: expected {expected}, found {value}"


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 1, "batch_size": 1, "evaluate_every": 1, "log_interval": 1},
        {"momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0},
        {"gradient_clip": None},
        {"schedule": "step", "milestones": (75, 105)},
        {"warmup_epochs": 0.25},
    ],
)
def test_the_ends_of_the_ranges_are_legal(changes):
    settings = GradientSettings(**changes)
    assert {key: getattr(settings, key) for key in changes} == changes


def test_steps_need_their_milestones():
    with pytest.raises(DetectError, match=r"training\.milestones: the schedule 'step' needs"):
        GradientSettings(schedule="step")
