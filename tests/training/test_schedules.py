import math

import pytest
import torch
from torch.optim import lr_scheduler
from torch.testing import assert_close

from detect.training import GradientSettings
from detect.training.schedules import learning_rate_factor

STEPS_PER_EPOCH = 7


def our_rates(settings, steps_per_epoch=STEPS_PER_EPOCH):
    return [
        settings.learning_rate * learning_rate_factor(step, steps_per_epoch, settings)
        for step in range(settings.epochs * steps_per_epoch)
    ]


def torch_rates(settings, build, steps_per_epoch=STEPS_PER_EPOCH):
    """The learning rate that torch's scheduler sets for each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.learning_rate)
    scheduler = build(optimizer)
    rates = []
    for _ in range(settings.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def assert_rates(ours, theirs):
    ours, theirs = torch.tensor(ours).double(), torch.tensor(theirs).double()
    assert_close(ours, theirs, rtol=1e-6, atol=1e-12)


def test_constant():
    settings = GradientSettings(epochs=2, schedule="constant", warmup_epochs=0.0)
    assert our_rates(settings) == [settings.learning_rate] * 14


@pytest.mark.parametrize("warmup_epochs", [1.0, 0.5, 2.5, 9.0])
def test_warm_up_equals_torch(warmup_epochs):
    settings = GradientSettings(
        epochs=5, schedule="constant", warmup_epochs=warmup_epochs, warmup_factor=0.05
    )
    steps = round(warmup_epochs * STEPS_PER_EPOCH)
    expected = torch_rates(settings, lambda o: lr_scheduler.LinearLR(o, 0.05, total_iters=steps))
    assert_rates(our_rates(settings), expected)


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.0, 1.5])
def test_cosine_after_warm_up_equals_torch(warmup_epochs):
    settings = GradientSettings(epochs=6, schedule="cosine", warmup_epochs=warmup_epochs)
    warmup, total = round(warmup_epochs * STEPS_PER_EPOCH), 6 * STEPS_PER_EPOCH

    def build(optimizer):
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup)
        if warmup == 0:
            return cosine
        linear = lr_scheduler.LinearLR(optimizer, settings.warmup_factor, total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [linear, cosine], milestones=[warmup])

    assert_rates(our_rates(settings), torch_rates(settings, build))


def test_steps_equal_torch():
    settings = GradientSettings(
        epochs=8, schedule="step", milestones=(3, 6), gamma=0.2, warmup_epochs=0.0
    )
    milestones = [epoch * STEPS_PER_EPOCH for epoch in settings.milestones]
    expected = torch_rates(settings, lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma=0.2))
    assert_rates(our_rates(settings), expected)


def test_steps_wait_for_the_warm_up():
    settings = GradientSettings(epochs=3, schedule="step", milestones=(1,), warmup_epochs=2.0)
    factors = [learning_rate_factor(step, 10, settings) for step in range(30)]
    assert factors[19] == pytest.approx(0.1 + 0.9 * 19 / 20)
    assert factors[20:] == [0.1] * 10


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 4), (1, 10), (5, 7), (24, 36)])
def test_one_cycle_equals_torch(epochs, steps_per_epoch):
    settings = GradientSettings(epochs=epochs, schedule="one_cycle")

    def build(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings.learning_rate,
            total_steps=epochs * steps_per_epoch,
            cycle_momentum=False,
            final_div_factor=math.inf,  # ours falls to 0
        )

    ours = our_rates(settings, steps_per_epoch)
    assert_rates(ours, torch_rates(settings, build, steps_per_epoch))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_descents_have_a_learning_rate(schedule, total):
    settings = GradientSettings(epochs=1, schedule=schedule, warmup_epochs=0.0)
    factors = [learning_rate_factor(step, total, settings) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
