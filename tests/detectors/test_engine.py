"""Every detector takes a step under every setting of the engine."""

from functools import lru_cache

import pytest
import torch

from detect.backbones import Backbone
from detect.structures import GroundTruth
from detect.training import ALONE, EngineSettings, GradientPhase, GradientSettings
from detect.training.descent import Descent
from tests.contracts import image_batch, some_truth
from tests.detectors.test_contracts import BUILDERS, NUM_CLASSES, build
from tests.training.tiny_training import Images

CPU = torch.device("cpu")
ENGINES = {
    "float32": {},
    "bfloat16": {"engine": {"precision": "bfloat16"}},
    "float16": {"engine": {"precision": "float16"}},
    "recomputed": {"engine": {"gradient_checkpointing": True}},
    "parts": {"settings": {"accumulate": 2}},
    "skip": {"engine": {"on_nan": "skip"}},
}


def step(kind, engine=None, settings=None, *, without_objects=False):
    """The terms of one step, and the detector after it."""
    detector = build(kind, "tiny").train()
    size = detector.input_spec.size
    truths = tuple(some_truth(size, NUM_CLASSES, 3, seed) for seed in range(2))
    if without_objects:
        truths = (GroundTruth.empty(),) * 2
    batch = image_batch(size, truths)
    engine = EngineSettings(**(engine or {}))
    for module in detector.modules():
        if isinstance(module, Backbone):
            module.is_recomputed = engine.gradient_checkpointing
    phase = GradientPhase(
        "train", detector, detector.loss, Images(), GradientSettings(**(settings or {}))
    )
    descent = Descent(phase, detector, engine, CPU, ALONE)
    torch.manual_seed(0)
    terms, is_bad = descent.step(batch, 1e-4)
    assert not is_bad
    return {name: term.item() for name, term in terms.items()}, detector


@lru_cache
def terms_in_full(kind):
    """What the other settings are compared with."""
    return step(kind)[0]


@pytest.mark.parametrize("kind", list(BUILDERS))
@pytest.mark.parametrize("name", [name for name in ENGINES if name != "float32"])
def test_a_step_under_each_setting(kind, name):
    expected = terms_in_full(kind)
    found, detector = step(kind, **ENGINES[name])
    assert found.keys() == expected.keys()
    assert all(value.isfinite().all() for value in detector.state_dict().values())
    if name in ("recomputed", "skip"):
        assert found == pytest.approx(expected, rel=1e-4)
    elif name != "parts":  # in parts, other regions are drawn and BatchNorm sees fewer images
        assert sum(found.values()) == pytest.approx(sum(expected.values()), rel=0.25)


@pytest.mark.parametrize("kind", list(BUILDERS))
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_images_without_objects_in_less_precision(kind, precision):
    terms, _ = step(kind, {"precision": precision}, without_objects=True)
    assert all(value >= 0 for value in terms.values())
