"""The one way to build a backbone of the registry, with weights and frozen parts."""

from collections.abc import Callable, Sequence

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES
from detect.backbones.weights import load_weights


def build_backbone(
    name: str,
    weights: str = "none",
    freeze: Sequence[str] = (),
    report: Callable[[str], object] | None = None,
    image_size: int | None = None,
) -> Backbone:
    """Build a registered backbone, load its weights and freeze parts of it.

    Args:
        name: its name in the registry.
        weights: `none`, `imagenet` or the path of a file; see `load_weights`.
        freeze: parts that training leaves as they are; see `Backbone.freeze`.
        report: called with each remark on what of the weights was not taken, or was missing.
        image_size: taken as the size that it was designed for; see `Backbone.design_for`.

    Raises:
        DetectError: an unknown name or part, or weights that are not to be had or do not fit.
    """
    backbone = BACKBONES[name]()
    for remark in load_weights(backbone, name, weights):
        if report is not None:
            report(remark)
    backbone.published = None  # lets go of the classifier, which no detector uses
    backbone.freeze(freeze)
    if image_size is not None:
        backbone.design_for(image_size)
    return backbone
