"""The steps: in parts, in less precision, with steps left out."""

import io
import json
import math

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.testing import assert_close

from detect.errors import DetectError
from detect.structures import Batch, GroundTruth, ImageMeta
from detect.training import ALONE, EngineSettings, ProgressDisplay, load_checkpoint
from detect.training.descent import Descent, autocast_type
from tests.training.tiny_training import (
    BATCH_SIZE,
    CPU,
    Brightness,
    Images,
    make_phase,
    make_run,
    make_settings,
)


class Plain(nn.Module):
    """Learns the mean brightness, without dropout or BatchNorm."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = (nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 1))
            self.layers = nn.Sequential(*layers)

    def loss(self, batch):
        images = batch.unit_images()
        error = self.layers(images)[:, 0] - images.flatten(1).mean(dim=1)
        return {"mean": error.float().square().mean()}


def descend(module, steps=5, batches=None, engine=None, **settings):
    batches = batches or Images(steps)
    phase = make_phase(module, make_settings(**settings), batches=batches)
    descent = Descent(phase, module, engine or EngineSettings(), CPU, ALONE)
    return [descent.step(batch, 0.05) for batch in batches.epoch(0)], descent


def test_a_batch_is_parted_in_order():
    batch = Images().batch(0, 0)
    parts = batch.parts(3)
    assert [len(part) for part in parts] == [1, 1, 2]
    assert_close(torch.cat([part.images for part in parts]), batch.images)
    assert sum((part.metas for part in parts), ()) == batch.metas
    assert [len(part) for part in batch.parts(9)] == [1] * BATCH_SIZE
    assert batch.parts(1)[0] is batch


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_step_in_parts_is_the_same_step(number):
    whole, parts = Plain(), Plain()
    expected, _ = descend(whole)
    found, _ = descend(parts, accumulate=number)
    for (one, _), (two, _) in zip(expected, found, strict=True):
        assert_close(two["mean"], one["mean"])
    assert_close(dict(parts.state_dict()), dict(whole.state_dict()))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_less_precision_learns_nearly_the_same(precision):
    whole, less = Plain(), Plain()
    expected, _ = descend(whole, steps=20)
    found, descent = descend(less, steps=20, engine=EngineSettings(precision=precision))
    losses = [terms["mean"].item() for terms, _ in found]
    assert losses != [terms["mean"].item() for terms, _ in expected]  # it is in use
    assert losses[0] == pytest.approx(expected[0][0]["mean"].item(), rel=0.05)
    late = [terms["mean"].item() for terms, _ in expected[-5:]]
    assert sum(losses[-5:]) == pytest.approx(sum(late), rel=0.2)
    assert less.layers[1].weight.dtype == torch.float32
    assert descent.scaler.is_enabled() == (precision == "float16")


def test_mixed_precision_is_what_the_device_has(monkeypatch):
    expected = {True: torch.bfloat16, False: None}
    for has_bfloat16, kind in expected.items():
        monkeypatch.setattr("detect.training.descent.cpu_has_bfloat16", lambda h=has_bfloat16: h)
        assert autocast_type("mixed", CPU) is kind
    assert autocast_type("float32", CPU) is None
    assert autocast_type("float16", CPU) is torch.float16


class Faulty(Images):
    """Some of its batches have an image that the loss of `Poisoned` cannot bear."""

    def __init__(self, bad, num_batches=5):
        super().__init__(num_batches)
        self.bad = bad

    def batch(self, epoch, index):
        if (epoch, index) not in self.bad:
            return super().batch(epoch, index)
        metas = tuple(ImageMeta(f"bad_{n}", None, (8, 8), (8, 8)) for n in range(BATCH_SIZE))
        images = torch.full((BATCH_SIZE, 3, 8, 8), 255, dtype=torch.uint8)
        return Batch(images, (GroundTruth.empty(),) * BATCH_SIZE, metas)


class Poisoned(Brightness):
    """Its loss, or its gradient alone, is not finite for white images."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def loss(self, batch):
        terms = super().loss(batch)
        white = batch.images.float().mean() == 255
        if white and self.what == "loss":
            terms["mean"] = terms["mean"] * math.nan
        elif white:  # √ at 0: value 0, gradient infinite
            terms["mean"] = terms["mean"] + (self.output.weight.sum() * 0).sqrt()
        return terms


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out(tmp_path, what):
    """As if the batch had not been there: weights, statistics, momentum, average."""

    def trained(bad, folder):
        module = Poisoned(what)
        torch.manual_seed(3)
        screen = io.StringIO()
        run = make_run(
            module, folder, None, ProgressDisplay(Console(file=screen, width=500)), on_nan="skip"
        )
        settings = make_settings(epochs=2, schedule="constant", warmup_epochs=0.0)
        run.run([make_phase(module, settings, batches=Faulty(bad))])
        return module, screen.getvalue()

    module, screen = trained({(0, 1), (1, 4)}, tmp_path / "run")
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert f"the {what} of step 2 is not finite (mean " in screen
    assert "Its images: bad_0, bad_1, bad_2, bad_3: the step was left out." in screen
    assert "steps left out: 1" in screen
    kept = load_checkpoint(tmp_path / "run" / "not_finite" / "step_00000010.pt")
    assert kept["files"] == [f"bad_{number}" for number in range(BATCH_SIZE)]
    assert kept["images"].shape == (BATCH_SIZE, 3, 8, 8)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["kind"] == "train"]
    assert steps == [1, 3, 4, 5, 6, 7, 8, 9]


def test_a_step_that_is_left_out_changes_nothing():
    module = Poisoned("loss")
    batches = Faulty({(0, 3)}, 4)
    phase = make_phase(module, make_settings(optimizer="adamw", ema_decay=0.9), batches=batches)
    descent = Descent(phase, module, EngineSettings(on_nan="skip"), CPU, ALONE)
    *good, bad = batches.epoch(0)
    for batch in good:
        descent.step(batch, 0.05)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    moments = [
        {name: value.clone() for name, value in state.items()}
        for state in descent.optimizer.state.values()
    ]
    _, is_bad = descent.step(bad, 0.05)
    assert bool(is_bad)
    after = dict(module.state_dict())
    count = after.pop("body.2.num_batches_tracked"), before.pop("body.2.num_batches_tracked")
    assert count[0] == count[1] + 1  # a count of batches seen, which nothing depends on
    assert_close(after, before, rtol=0, atol=0)
    for state, moment in zip(descent.optimizer.state.values(), moments, strict=True):
        assert_close(dict(state), moment, rtol=0, atol=0)


def test_a_run_of_nothing_but_such_steps_ends(tmp_path):
    module = Poisoned("loss")
    run = make_run(module, tmp_path, on_nan="skip")
    bad = {(0, index) for index in range(200)}
    with pytest.raises(DetectError, match="100 steps in a row"):
        run.run([make_phase(module, make_settings(epochs=1), batches=Faulty(bad, 200))])
    assert len(list((tmp_path / "not_finite").iterdir())) == 10


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    module = Poisoned("gradient")
    run = make_run(module, tmp_path)
    with pytest.raises(DetectError, match=r"the gradient of step 2 is not finite.*bad_0"):
        run.run([make_phase(module, batches=Faulty({(0, 1)}))])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_says_what_takes_less(tmp_path, error):
    module = Plain()

    def loss(batch):  # noqa: ARG001
        raise error

    run = make_run(module, tmp_path)
    with pytest.raises(DetectError) as caught:
        run.run([make_phase(module, make_settings(accumulate=2), loss=loss)])
    message = str(caught.value)
    assert "a step of 4 images of 8×8 pixels, in 2 parts, in phase train" in message
    for key in ("training.accumulate=4", "engine.precision", "engine.gradient_checkpointing"):
        assert key in message


def test_other_errors_stay_what_they_are(tmp_path):
    def loss(batch):  # noqa: ARG001
        raise RuntimeError("a fault of ours")

    run = make_run(Plain(), tmp_path)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run.run([make_phase(run.model, loss=loss)])


def test_averaged_weights_are_judged_and_kept(tmp_path):
    seen = []
    module = Plain()

    def evaluate():
        seen.append(module.layers[3].bias.item())
        return {"map_area": 0.0, "map_11point": 0.0}

    run = make_run(module, tmp_path, evaluate)
    run.run([make_phase(module, make_settings(epochs=2, ema_decay=0.9))])
    plain = Plain()
    raw = make_run(plain, tmp_path / "raw")
    raw.run([make_phase(plain, make_settings(epochs=2))])
    assert module.layers[3].bias.item() == seen[-1] != plain.layers[3].bias.item()
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")["detector"]
    assert best["layers.3.bias"].item() == seen[0]
