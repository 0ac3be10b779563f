"""Classification networks as trunks and heads, by name. Floor 2."""

from detect.backbones import darknet, mobilenet, resnet, squeezenet, tiny, vgg  # registers them
from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES, build_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "Published",
    "build_backbone",
    "darknet",
    "mobilenet",
    "resnet",
    "squeezenet",
    "tiny",
    "vgg",
]
