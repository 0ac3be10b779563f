"""MobileNetV2 (Sandler et al. 2018), torchvision's."""

from torch import nn
from torchvision.models import mobilenetv2

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


@BACKBONES.register("mobilenet_v2")
def mobilenet_v2() -> Backbone:
    """Trunk through the last 1×1 convolution (1,280 channels, stride 32), head the average pool."""
    network = mobilenetv2.mobilenet_v2()
    weights = mobilenetv2.MobileNet_V2_Weights.IMAGENET1K_V2
    return Backbone(
        network.features,
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        image_size=224,
        published=Published(network, classifier="classifier.1.", weights=weights),
    )
