import torch
from torch import nn
from torch.testing import assert_close

from detect.training.averaging import AveragedWeights


def test_the_average_follows_the_weights_as_the_formula_says():
    module = nn.Linear(2, 1)
    averaged = AveragedWeights(module, 0.75)
    expected = module.weight.detach().double().clone()
    for number in range(40):
        with torch.no_grad():
            module.weight.copy_(torch.randn(1, 2, generator=torch.Generator().manual_seed(number)))
        averaged.update()
        decay = min(0.75, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * module.weight.detach().double()
    assert_close(averaged.average["weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_weights_come_back():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    averaged = AveragedWeights(module, 0.5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(torch.randn(8, 2))
    with torch.no_grad():
        module[0].weight.add_(1)
    averaged.update()
    now = {name: value.clone() for name, value in module.state_dict().items()}
    with averaged.applied():
        assert_close(module[0].weight, torch.lerp(before["0.weight"], now["0.weight"], 0.9))
        running = torch.lerp(before["1.running_mean"], now["1.running_mean"], 0.9)
        assert_close(module[1].running_mean, running)
        assert module[1].num_batches_tracked == 1
    assert_close(dict(module.state_dict()), now, rtol=0, atol=0)
    averaged.keep()
    assert_close(module[0].weight, torch.lerp(before["0.weight"], now["0.weight"], 0.9))


def test_shared_weights_come_back_as_well():
    module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    module[1].weight = module[0].weight
    averaged = AveragedWeights(module, 0.5)
    with torch.no_grad():
        module[0].weight.add_(1)
    averaged.update()
    now = module[0].weight.clone()
    with averaged.applied():
        assert not torch.equal(module[1].weight, now)
    assert torch.equal(module[1].weight, now)


def test_the_state_comes_back():
    module = nn.Linear(2, 1)
    one, other = AveragedWeights(module, 0.9), AveragedWeights(module, 0.9)
    with torch.no_grad():
        module.weight.add_(1)
    one.update()
    other.load_state_dict(one.state_dict())
    one.update()
    other.update()
    assert_close(other.average, one.average, rtol=0, atol=0)
