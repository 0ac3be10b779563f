import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detect.training import GradientSettings
from detect.training.optimizers import build_optimizer


@pytest.fixture
def module():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def names_of(module, parameters):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_weights_are_decayed(module, optimizer):
    built = build_optimizer(module, GradientSettings(optimizer=optimizer, weight_decay=0.25))
    decayed, free = built.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.25, 0.0)
    assert names_of(module, decayed["params"]) == ["0.weight", "3.weight"]
    assert names_of(module, free["params"]) == ["0.bias", "1.weight", "1.bias", "3.bias"]


def test_frozen_parameters_are_left_out(module):
    module[:2].requires_grad_(False)
    decayed, free = build_optimizer(module, GradientSettings()).param_groups
    assert names_of(module, decayed["params"]) == ["3.weight"]
    assert names_of(module, free["params"]) == ["3.bias"]


@pytest.mark.parametrize(
    ("name", "kind", "key", "value"),
    [
        ("sgd", torch.optim.SGD, "momentum", 0.8),
        ("adamw", torch.optim.AdamW, "betas", (0.8, 0.999)),
    ],
)
def test_the_settings_reach_the_optimizer(module, name, kind, key, value):
    settings = GradientSettings(optimizer=name, learning_rate=0.3, momentum=0.8)
    built = build_optimizer(module, settings)
    assert type(built) is kind
    for group in built.param_groups:
        assert group["lr"] == 0.3
        assert group[key] == value


def test_decay_shrinks_weights_and_nothing_else(module):
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    settings = GradientSettings(learning_rate=0.5, weight_decay=0.1, momentum=0.0)
    optimizer = build_optimizer(module, settings)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 1 - 0.5 * 0.1 if parameter.ndim > 1 else 1.0
        assert_close(parameter.detach(), before[name] * factor)
