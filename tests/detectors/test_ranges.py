"""Numbers of the `detector` section: each states its range, and within it everything works."""

import inspect
import math
import typing

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from detect.backbones import create_backbone
from detect.config import GIVEN_TO_DETECTORS
from detect.detectors import DETECTORS
from detect.errors import DetectError
from tests.contracts import image_batch, some_truth

NUM_CLASSES = 2
RANDOM = {"proposals": "random-boxes", "proposal_options": {"count": 8}}
# What makes a small detector of each family.
SMALL = {
    "yolo": {"input_size": 64, "hidden_features": 8},
    "localizer": {"input_size": 64, "hidden_features": (8,)},
    "sliding_window": {"input_size": 64, "scales": (1.0,), "hidden_features": (8,)},
    "rcnn": {"input_size": 64, "windows_per_step": 4, **RANDOM},
    "fast_rcnn": {"input_size": 64, "shorter_side": None, **RANDOM},
    "faster_rcnn": {"input_size": 64, "shorter_side": None, "train_proposals": (50, 20)},
}
NUMBERS = (-1, 0, 1, 0.5, math.nan, math.inf)
VALUES = (*NUMBERS, (), *((number,) for number in NUMBERS), *((n, n) for n in NUMBERS))


def arguments(name):
    return {
        key: parameter.annotation
        for key, parameter in inspect.signature(DETECTORS[name]).parameters.items()
        if key not in GIVEN_TO_DETECTORS
    }


def bare_numbers(annotation):
    """The numbers in an annotation that have no range."""
    if annotation in (int, float):
        return [annotation]
    if typing.get_origin(annotation) is typing.Annotated:
        inner = annotation.__origin__
        return [] if inner in (int, float) else bare_numbers(inner)
    return [found for part in typing.get_args(annotation) for found in bare_numbers(part)]


def is_legal(annotation, value):
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def values_of(name, key, legal):
    annotation = arguments(name)[key]
    return [value for value in VALUES if is_legal(annotation, value) == legal]


CASES = [
    (name, key)
    for name in SMALL
    for key, annotation in arguments(name).items()
    if any(kind in str(annotation) for kind in ("int", "float"))
]


def build(name, **options):
    torch.manual_seed(0)
    return DETECTORS[name](create_backbone("tiny"), NUM_CLASSES, **{**SMALL[name], **options})


def test_all_families_are_here():
    assert set(SMALL) == set(DETECTORS)


@pytest.mark.parametrize("name", SMALL)
def test_every_number_states_its_range(name):
    without = {key: bare_numbers(annotation) for key, annotation in arguments(name).items()}
    assert {key: found for key, found in without.items() if found} == {}


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("tiny")  # not touched by a constructor that refuses


@pytest.mark.parametrize(("name", "key"), CASES)
def test_a_constructor_refuses_what_is_out_of_range(name, key, backbone):
    for value in values_of(name, key, legal=False):
        with pytest.raises(DetectError, match=rf"^detector\.{key}\b.*, found "):
            DETECTORS[name](backbone, NUM_CLASSES, **{**SMALL[name], key: value})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key"), CASES)
def test_what_is_in_range_trains_and_detects(name, key):
    for value in values_of(name, key, legal=True):
        try:
            detector = build(name, **{key: value})
        except DetectError:  # it does not go with the other settings
            continue
        size = detector.input_spec.size
        truths = tuple(some_truth(size, NUM_CLASSES, 2, seed) for seed in range(2))
        batch = image_batch(size, truths)
        if key == "num_joints" and value:
            with pytest.raises(DetectError, match=r"detector\.num_joints: expected data with"):
                detector.loss(batch)
            continue
        total = sum(detector.loss(batch).values())
        assert total.isfinite(), value
        if total.requires_grad:
            total.backward()
        detector.detect(batch)
