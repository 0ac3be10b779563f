"""The plain networks that ResNet is compared with (He et al. 2016, section 3.3 and figure 3).

The layers of ResNet-18 and ResNet-34 without the shortcuts: what gets harder to train with depth.
"""

from functools import partial

from torch import nn

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES


def _plain(blocks: tuple[int, int, int, int]) -> Backbone:
    """Trunk through conv5_x (512 channels, stride 32), head the global average pool."""
    stages: list[nn.Module] = [_convolution(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, padding=1)]
    channels = 64
    for stage, count in enumerate(blocks):
        filters = 64 * 2**stage
        layers = []
        for layer in range(2 * count):  # two convolutions where ResNet has a block
            stride = 2 if layer == 0 and stage > 0 else 1
            layers.append(_convolution(channels, filters, 3, stride))
            channels = filters
        stages.append(nn.Sequential(*layers))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Backbone(nn.Sequential(*stages), head, image_size=224)


BACKBONES.register("plain18")(partial(_plain, (2, 2, 2, 2)))
BACKBONES.register("plain34")(partial(_plain, (3, 4, 6, 3)))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
