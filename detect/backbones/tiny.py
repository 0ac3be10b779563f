"""A small network for demos and tests: four stages, 0.8 million weights, no paper."""

from torch import nn

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES


@BACKBONES.register("tiny")
def tiny() -> Backbone:
    """Stride 16 and 128 channels; made for pictures of 64 to 160 pixels."""
    widths = (16, 32, 64, 128)
    layers: list[nn.Module] = []
    previous = 3
    for width in widths:
        layers += [_convolution(previous, width, stride=2), _convolution(width, width, stride=1)]
        previous = width
    layers.append(_convolution(previous, previous, stride=1))
    grid, feature_dim = 4, 256
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(previous * grid**2, feature_dim), nn.ReLU(inplace=True)
    )
    return Backbone(nn.Sequential(*layers), head, image_size=64)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
