"""Fully connected layers made of two thin ones (Girshick 2015, section 3.1)."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from detect.errors import DetectError


def check_ranks(module: nn.Module, ranks: Sequence[int]) -> None:
    """Whether the fully connected layers of a module, in their order, can be truncated so.

    Raises:
        DetectError: not as many layers as ranks, or a rank that a layer does not have.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if len(layers) != len(ranks):
        raise DetectError(
            f"detector.truncated_svd: expected a rank for each of the {len(layers)} fully "
            f"connected layers of the head (0 leaves one as it is), found {list(ranks)}"
        )
    for layer, rank in zip(layers, ranks, strict=True):
        most = min(layer.in_features, layer.out_features)
        if not 0 <= rank <= most:
            raise DetectError(
                f"detector.truncated_svd: expected 1 to {most} singular values for a layer from "
                f"{layer.in_features} to {layer.out_features} features (0 leaves it as it is), "
                f"found {rank}"
            )


@torch.no_grad()
def truncated(layer: nn.Linear, rank: int) -> nn.Sequential:
    """W ≈ U Σ Vᵀ of `rank` singular values: Σ Vᵀ without biases, then U with the layer's biases."""
    left, values, right = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    first.to(layer.weight).weight.copy_(values[:rank, None] * right[:rank])
    second.to(layer.weight).weight.copy_(left[:, :rank])
    if layer.bias is not None and second.bias is not None:
        second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def with_truncated_layers(module: nn.Module, ranks: Sequence[int]) -> nn.Module:
    """A copy of a module in which the fully connected layers, in their order, are truncated.

    Args:
        module: such as VGG's head with fc6 and fc7.
        ranks: singular values that are kept of each; a layer whose rank is 0 stays.

    Raises:
        DetectError: see `check_ranks`.
    """
    check_ranks(module, ranks)
    changed = nn.Sequential(copy.deepcopy(module))
    names = [name for name, layer in changed.named_modules() if isinstance(layer, nn.Linear)]
    for name, rank in zip(names, ranks, strict=True):
        if rank:
            parent, _, child = name.rpartition(".")
            layer = changed.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            setattr(changed.get_submodule(parent), child, truncated(layer, rank))
    return changed.eval()
