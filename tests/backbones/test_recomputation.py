import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detect.backbones import create_backbone


class Counter:
    def __init__(self, module):
        self.calls = 0
        module.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1


def trained(name, is_recomputed, *, steps=2):
    """Gradients, weights and statistics after some steps; calls of the first convolution."""
    torch.manual_seed(0)
    backbone = create_backbone(name).train()
    backbone.is_recomputed = is_recomputed
    for layer in backbone.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6 | nn.LeakyReLU):
            layer.inplace = False
    counter = Counter(next(m for m in backbone.modules() if isinstance(m, nn.Conv2d)))
    optimizer = torch.optim.SGD(backbone.trunk.parameters(), lr=0.01)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        sum(level.square().mean() for level in backbone.pyramid(images).values()).backward()
        optimizer.step()
    return dict(backbone.state_dict()), counter.calls


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "squeezenet1_0"])
def test_maps_that_are_computed_again_give_the_same_steps(name):
    expected, calls = trained(name, False)
    found, calls_again = trained(name, True)
    assert calls_again == 2 * calls  # it is in use
    assert_close(found, expected)  # running statistics and their count among them


def test_dropout_draws_the_same_numbers_again():
    torch.manual_seed(0)
    backbone = create_backbone("tiny").train()
    backbone.trunk[0] = nn.Sequential(backbone.trunk[0], nn.Dropout(0.5))
    backbone.is_recomputed = True
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    torch.manual_seed(5)
    backbone(images).sum().backward()
    again = images.detach().clone().requires_grad_()
    backbone.is_recomputed = False
    torch.manual_seed(5)
    backbone(again).sum().backward()
    assert_close(images.grad, again.grad)


def test_evaluation_computes_once():
    backbone = create_backbone("tiny").eval()
    backbone.is_recomputed = True
    counter = Counter(backbone.trunk[0])
    backbone(torch.rand(1, 3, 32, 32)).sum().backward()
    assert counter.calls == 1


def test_parts_of_the_trunk_add_up():
    backbone = create_backbone("tiny").eval()
    images = torch.rand(1, 3, 64, 64)
    normalized = backbone.normalize(images)
    whole = backbone.trunk(normalized)
    for cut in range(1, len(backbone.trunk)):
        part = backbone.run_layers(normalized, end=cut)
        assert_close(backbone.run_layers(part, cut), whole)


@pytest.mark.slow
def test_compiled_layers_give_the_same():
    torch.manual_seed(0)
    backbone = create_backbone("tiny").train()
    images = torch.rand(2, 3, 64, 64)
    level = backbone.levels[1]  # all of them would take the compiler a minute
    expected = backbone.trunk_to(level, images)
    backbone.compile_layers()
    assert_close(backbone.trunk_to(level, images), expected, rtol=1e-4, atol=1e-5)
    assert len(backbone._compiled) == 2
    backbone.eval().pyramid(torch.rand(3, 3, 32, 32))
    assert len(backbone._compiled) == 2
