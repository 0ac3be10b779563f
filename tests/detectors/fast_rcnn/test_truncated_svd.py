"""Truncated layers: what they compute, what they cost, and what they leave as it was."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detect.detectors.fast_rcnn.truncated_svd import (
    check_ranks,
    truncated,
    with_truncated_layers,
)
from detect.errors import DetectError

SIZES = [(1, 1), (1, 5), (6, 1), (12, 7), (7, 12), (9, 9)]


def layer_of(inputs, outputs, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def rows(inputs):
    return torch.randn(11, inputs, generator=torch.Generator().manual_seed(1))


def head():
    """Like VGG's: fc6, fc7 and what lies between, of other sizes."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(6, 10), nn.ReLU(inplace=True)),
        nn.Dropout(0.5),
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_all_singular_values_give_the_layer(inputs, outputs, bias):
    layer = layer_of(inputs, outputs, bias)
    pair = truncated(layer, min(inputs, outputs))
    assert_close(pair(rows(inputs)), layer(rows(inputs)))


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_the_error_is_the_least_that_the_rank_allows(inputs, outputs):
    # Eckart and Young: the singular values that are left out
    layer = layer_of(inputs, outputs)
    values = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False)
    for rank in range(1, min(inputs, outputs) + 1):
        first, second = truncated(layer, rank)
        product = second.weight.double() @ first.weight.double()
        difference = (layer.weight.double() - product).detach().numpy()
        left_out = [*values[rank:], 0.0]
        assert np.linalg.matrix_rank(product.detach().numpy(), tol=1e-5) <= rank
        assert_close(np.linalg.norm(difference), np.linalg.norm(left_out), rtol=1e-5, atol=1e-6)
        assert_close(np.linalg.norm(difference, 2), left_out[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_two_thin_layers_have_as_many_weights_as_the_paper_says(inputs, outputs, bias):
    layer = layer_of(inputs, outputs, bias)
    for rank in range(1, min(inputs, outputs) + 1):
        pair = truncated(layer, rank)
        weights = sum(part.weight.numel() for part in pair)
        assert weights == rank * (inputs + outputs)
        biases = sum(value.numel() for value in pair.parameters()) - weights
        assert biases == (outputs if bias else 0)


def test_the_layers_are_those_of_the_paper():
    layer = layer_of(12, 7)
    first, second = truncated(layer, 3)
    assert first.bias is None
    assert torch.equal(second.bias, layer.bias)
    # U has orthonormal columns; the rows of Σ Vᵀ have the singular values as lengths
    assert_close(second.weight.T @ second.weight, torch.eye(3))
    values = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
    assert_close(first.weight @ first.weight.T, torch.from_numpy(values[:3] ** 2).diag())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_layers_keep_their_type(dtype):
    layer = layer_of(12, 7).to(dtype)
    assert {value.dtype for value in truncated(layer, 3).parameters()} == {dtype}


def test_a_changed_pair_leaves_the_layer():
    layer = layer_of(12, 7)
    before = copy.deepcopy(layer.state_dict())
    pair = truncated(layer, 7)
    with torch.no_grad():
        for value in pair.parameters():
            value.zero_()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_layers_of_a_head_are_truncated_in_their_order():
    whole = head().eval()
    changed = with_truncated_layers(whole, [2, 5])
    linear = [module for module in changed.modules() if isinstance(module, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in linear]
    assert sizes == [(8, 2), (2, 6), (6, 5), (5, 10)]
    fc6, fc7 = truncated(whole[1], 2), truncated(whole[3][0], 5)
    expected = fc7(fc6(rows(8)).relu()).relu()
    assert_close(changed(rows(8)), expected)
    assert (expected - whole(rows(8))).abs().max() > 0.01


def test_all_singular_values_give_the_head():
    whole = head()
    changed = with_truncated_layers(whole, [6, 6])
    assert not any(module.training for module in changed.modules())
    assert_close(changed(rows(8)), whole.eval()(rows(8)))


def test_the_head_itself_is_unchanged():
    whole = head()
    before, structure = copy.deepcopy(whole.state_dict()), str(whole)
    changed = with_truncated_layers(whole, [1, 0])
    with torch.no_grad():
        for value in changed.parameters():
            value.zero_()
    assert str(whole) == structure
    assert all(module.training for module in whole.modules())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_rank_of_zero_leaves_a_layer():
    whole = head().eval()
    changed = with_truncated_layers(whole, [0, 2])
    linear = [module for module in changed.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 3
    assert torch.equal(linear[0].weight, whole[1].weight)
    assert torch.equal(linear[0].bias, whole[1].bias)
    untouched = with_truncated_layers(whole, [0, 0])
    assert_close(untouched(rows(8)), whole(rows(8)), rtol=0, atol=0)


def test_a_layer_alone_is_a_head():
    layer = layer_of(12, 7)
    changed = with_truncated_layers(layer, [4])
    assert_close(changed(rows(12)), truncated(layer, 4)(rows(12)))


@pytest.mark.parametrize("ranks", [[0, 0], [1, 0], [6, 6]])
def test_ranks_that_the_layers_have(ranks):
    check_ranks(head(), ranks)


@pytest.mark.parametrize("refuse", [check_ranks, with_truncated_layers])
@pytest.mark.parametrize("ranks", [[], [2], [2, 2, 2]])
def test_each_layer_of_the_head_has_its_rank(refuse, ranks):
    with pytest.raises(DetectError) as caught:
        refuse(head(), ranks)
    assert str(caught.value) == (
        "detector.truncated_svd: expected a rank for each of the 2 fully connected layers of the "
        f"head (0 leaves one as it is), found {ranks}"
    )


@pytest.mark.parametrize("refuse", [check_ranks, with_truncated_layers])
@pytest.mark.parametrize("rank", [-1, 7])
def test_a_rank_that_a_layer_does_not_have_is_refused(refuse, rank):
    with pytest.raises(DetectError) as caught:
        refuse(head(), [0, rank])
    assert str(caught.value) == (
        "detector.truncated_svd: expected 1 to 6 singular values for a layer from 6 to 10 "
        f"features (0 leaves it as it is), found {rank}"
    )
    with pytest.raises(DetectError, match="from 8 to 6 features"):
        refuse(head(), [rank, 0])
