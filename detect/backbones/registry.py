"""The table of backbones and the one way to build them."""

from collections.abc import Callable, Sequence

from detect.backbones.base import Backbone
from detect.backbones.weights import load_weights
from detect.registry import Registry

BACKBONES: Registry[Callable[[], Backbone]] = Registry("backbone")


def build_backbone(name: str, weights: str = "none", freeze: Sequence[str] = ()) -> Backbone:
    """Build a registered backbone, load its weights and freeze parts of it.

    Args:
        name: its name in the registry.
        weights: `none`, `imagenet` or the path of a file; see `load_weights`.
        freeze: parts that training leaves as they are; see `Backbone.freeze`.

    Raises:
        DetectError: an unknown name or part, or weights that are not to be had or do not fit.
    """
    backbone = BACKBONES[name]()
    load_weights(backbone, name, weights)
    backbone.published = None  # lets go of the classifier, which no detector uses
    backbone.freeze(freeze)
    return backbone
