"""Small networks for demos and tests, no paper: convolutions and one hidden layer."""

from torch import nn

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES


@BACKBONES.register("tiny")
def tiny() -> Backbone:
    """Stride 16 and 128 channels; made for images of 64 to 160 pixels.

    The first convolution has stride 4, since on a CPU the large maps take the time.
    """
    return _network(
        _convolution(3, 32, kernel=6, stride=4),  # stride 4
        _convolution(32, 32),
        _convolution(32, 64, stride=2),  # stride 8
        _convolution(64, 64),
        _convolution(64, 64),
        _convolution(64, 128, stride=2),  # stride 16
        _convolution(128, 128),
    )


@BACKBONES.register("tiny_shallow")
def tiny_shallow() -> Backbone:
    """`tiny` without its convolutions of stride 1: three are left of seven.

    Strides, channels and head stay, so that the two differ in depth alone.
    """
    return _network(
        _convolution(3, 32, kernel=6, stride=4),  # stride 4
        _convolution(32, 64, stride=2),  # stride 8
        _convolution(64, 128, stride=2),  # stride 16
    )


def _network(*layers: nn.Module) -> Backbone:
    grid, feature_dim = 4, 256
    head = nn.Sequential(nn.Flatten(), nn.Linear(128 * grid**2, feature_dim), nn.ReLU(inplace=True))
    return Backbone(nn.Sequential(*layers), head, image_size=64, num_published_classes=0)


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
