"""Optimizers, with weight decay where it belongs."""

import torch
from torch import nn

from detect.training.settings import GradientSettings


def build_optimizer(module: nn.Module, settings: GradientSettings) -> torch.optim.Optimizer:
    """The optimizer of those parameters of `module` that require a gradient.

    Biases and normalization parameters, all of one dimension, are not decayed.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in trainable if parameter.ndim > 1],
            "weight_decay": settings.weight_decay,
        },
        {
            "params": [parameter for parameter in trainable if parameter.ndim <= 1],
            "weight_decay": 0.0,
        },
    ]
    if settings.optimizer == "adamw":
        betas = (settings.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
    return torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, fused=True
    )
