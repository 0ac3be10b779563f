"""AlexNet as published (Krizhevsky, Sutskever & Hinton 2012, section 3), in the paper's order.

Images of 227×227: the paper's text says 224, for which its first volume, 55×55, cannot be. In
`alexnet`, convolutions 2, 4 and 5 are in two groups, as on the paper's two GPUs;
`alexnet_ungrouped` is the same network on one. The normalization stands before the pool (section
3.5); Caffe's CaffeNet and many lectures have it behind. torchvision's AlexNet is another network
(Krizhevsky 2014), registered as `alexnet_owt`.
"""

from functools import partial

from torch import nn

from detect.backbones.base import IMAGENET_MEAN, Backbone
from detect.backbones.registry import BACKBONES

# Sections 3.1 and 5: pixels in 0…255, less their mean.
PIXEL_STD = (1 / 255, 1 / 255, 1 / 255)


def _alexnet(groups: int) -> Backbone:
    """Trunk through pool5 (256 channels, stride 32), head fc6 and fc7 over a 6×6 grid."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4),  # 55×55×96
        nn.ReLU(inplace=True),
        response_norm(),
        nn.MaxPool2d(3, 2),  # 27×27×96
        nn.Conv2d(96, 256, 5, padding=2, groups=groups),  # 27×27×256
        nn.ReLU(inplace=True),
        response_norm(),
        nn.MaxPool2d(3, 2),  # 13×13×256
        nn.Conv2d(256, 384, 3, padding=1),  # 13×13×384
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=groups),  # 13×13×384
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=groups),  # 13×13×256
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),  # 6×6×256
    )
    head = fully_connected(256 * 6 * 6)
    # section 5: ones give the rectifiers positive inputs at first
    weighted = [layer for layer in [*trunk, *head] if isinstance(layer, nn.Conv2d | nn.Linear)]
    for index, layer in enumerate(weighted, start=1):
        initialize(layer, bias=1.0 if index in (2, 4, 5, 6, 7) else 0.0)
    return Backbone(trunk, head, image_size=227, mean=IMAGENET_MEAN, std=PIXEL_STD)


BACKBONES.register("alexnet")(partial(_alexnet, groups=2))
BACKBONES.register("alexnet_ungrouped")(partial(_alexnet, groups=1))


def response_norm() -> nn.Module:
    """Local response normalization (section 3.3): k = 2, n = 5, α = 10⁻⁴, β = 0.75."""
    # PyTorch takes the mean over the n channels where the paper takes the sum
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)


def fully_connected(inputs: int) -> nn.Sequential:
    """Layers fc6 and fc7 with dropout (section 4.2)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(inputs, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
    )


def initialize(layer: nn.Conv2d | nn.Linear, bias: float) -> None:
    """Draw weights from N(0, 0.01²) and set the biases (section 5)."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
