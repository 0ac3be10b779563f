"""SqueezeNet 1.0 (Iandola et al. 2016), torchvision's."""

from torch import nn
from torchvision import models

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


@BACKBONES.register("squeezenet1_0")
def squeezenet1_0() -> Backbone:
    """Trunk through fire9 (512 channels, stride 16), head the global average pool.

    The network classifies by a 1×1 convolution before the pool, which the head leaves out. Its
    first convolution has no padding, so the grid at 224 pixels is 13, not 14.
    """
    network = models.squeezenet1_0()
    weights = models.SqueezeNet1_0_Weights.IMAGENET1K_V1
    return Backbone(
        network.features,
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        image_size=224,
        published=Published(network, classifier="classifier.1.", weights=weights),
    )
