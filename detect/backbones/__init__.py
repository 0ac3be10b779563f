"""Classification networks as trunks and heads, by name. Floor 2."""

from importlib import import_module
from pkgutil import iter_modules

from detect.backbones.base import Auxiliary, Backbone, Published
from detect.backbones.build import create_backbone, list_backbones
from detect.backbones.registry import BACKBONES

# Every file of this folder that registers something is found: adding a backbone is adding a file.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
