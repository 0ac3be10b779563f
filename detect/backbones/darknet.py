"""The two trunks of YOLO (Redmon et al. 2016, section 2.1): 24 convolutions, and the fast 9.

The paper's networks have no BatchNorm and are pretrained on ImageNet for a week; the configuration
files that its authors released have BatchNorm, which trains from scratch far sooner: `…_bn`.

Deviation: the paper pretrains the first 20 of the 24 convolutions under an average pool; here the
head pools the output of all of them.
"""

from functools import partial

from torch import nn

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES

# (kernel, filters) of a convolution, "2" for one with stride 2, None for a 2×2 max pool: figure 3.
Layer = tuple[int, int] | tuple[int, int, int] | None
YOLO_LAYERS: tuple[Layer, ...] = (
    (7, 64, 2), None,
    (3, 192), None,
    (1, 128), (3, 256), (1, 256), (3, 512), None,
    (1, 256), (3, 512), (1, 256), (3, 512), (1, 256), (3, 512), (1, 256), (3, 512),
    (1, 512), (3, 1024), None,
    (1, 512), (3, 1024), (1, 512), (3, 1024), (3, 1024), (3, 1024, 2),
    (3, 1024), (3, 1024),
)  # fmt: skip

# The paper only says "9 convolutional layers instead of 24 and fewer filters"; these are the
# authors' released ones.
FAST_YOLO_LAYERS: tuple[Layer, ...] = (
    (3, 16), None,
    (3, 32), None,
    (3, 64), None,
    (3, 128), None,
    (3, 256), None,
    (3, 512), None,
    (3, 1024), (3, 1024), (3, 1024),
)  # fmt: skip


def _darknet(layers: tuple[Layer, ...], batch_norm: bool) -> Backbone:
    """Trunk of 1,024 channels and stride 64, a 7×7 grid at 448 pixels; head the average pool."""
    modules: list[nn.Module] = []
    channels = 3
    for layer in layers:
        if layer is None:
            modules.append(nn.MaxPool2d(2, 2))
            continue
        kernel, filters, *rest = layer
        stride = rest[0] if rest else 1
        modules.append(_convolution(channels, filters, kernel, stride, batch_norm))
        channels = filters
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Backbone(nn.Sequential(*modules), head, image_size=448)


for _name, _layers in (("yolo_darknet", YOLO_LAYERS), ("yolo_darknet_fast", FAST_YOLO_LAYERS)):
    BACKBONES.register(_name)(partial(_darknet, _layers, batch_norm=False))
    BACKBONES.register(f"{_name}_bn")(partial(_darknet, _layers, batch_norm=True))


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, batch_norm: bool
) -> nn.Sequential:
    slope = 0.1  # of the leaky rectifier, equation 2
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm
    )
    nn.init.kaiming_normal_(convolution.weight, a=slope)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(convolution, *norm, nn.LeakyReLU(slope, inplace=True))
