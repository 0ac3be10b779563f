"""ZFNet (Zeiler & Fergus 2014, figure 3): AlexNet with a finer first layer.

`zfnet` has 512, 1024 and 512 filters in convolutions 3, 4 and 5, the best of the paper's table 3,
with which it won ILSVRC 2013; `zfnet_small` has the 384, 384 and 256 of figure 3, the ZF of the
Faster R-CNN paper. Deviation: the paper does not give the constants of its contrast normalization
across maps; those of AlexNet are used.
"""

from functools import partial

from torch import nn

from detect.backbones.alexnet import PIXEL_STD, fully_connected, initialize, response_norm
from detect.backbones.base import IMAGENET_MEAN, Backbone
from detect.backbones.registry import BACKBONES


def _zfnet(third: int, fourth: int, fifth: int) -> Backbone:
    """Trunk through pool5 (`fifth` channels, stride 32), head fc6 and fc7 over a 6×6 grid."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 96, 7, stride=2, padding=1),  # 110×110×96
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),  # 55×55×96
        response_norm(),
        nn.Conv2d(96, 256, 5, stride=2),  # 26×26×256
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),  # 13×13×256
        response_norm(),
        nn.Conv2d(256, third, 3, padding=1),  # 13×13
        nn.ReLU(inplace=True),
        nn.Conv2d(third, fourth, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(fourth, fifth, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),  # 6×6
    )
    head = fully_connected(fifth * 6 * 6)
    for layer in [*trunk, *head]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            initialize(layer, bias=0.0)  # section 3.1
    return Backbone(trunk, head, image_size=224, mean=IMAGENET_MEAN, std=PIXEL_STD)


BACKBONES.register("zfnet")(partial(_zfnet, 512, 1024, 512))
BACKBONES.register("zfnet_small")(partial(_zfnet, 384, 384, 256))
