"""List and build the backbones of the registry."""

from collections.abc import Callable, Sequence
from pathlib import Path

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES
from detect.backbones.weights import load_weights


def list_backbones(pattern: str = "*") -> list[str]:
    """The names of backbones, for `create_backbone` and `backbone.name`.

    Args:
        pattern: with `*`; `torchvision/*` and `timm/*` list the networks of these libraries, not
            in the default.

    Raises:
        DetectError: a pattern that begins with `timm/`, where timm is not installed.
    """
    return BACKBONES.names_like(pattern)


def create_backbone(
    name: str,
    weights: str | Path = "none",
    freeze: Sequence[str] = (),
    report: Callable[[str], object] | None = None,
    image_size: int | None = None,
) -> Backbone:
    """Build a registered backbone, load its weights and freeze parts of it.

    Args:
        name: one of `list_backbones()`, or a network of torchvision or timm, `timm/convnext_tiny`.
        weights: `none`, `imagenet` or the path of a file; see `load_weights`.
        freeze: parts that training leaves as they are; see `Backbone.freeze`.
        report: called with each remark on weights that were ignored or missing.
        image_size: the new designed size; see `Backbone.design_for`.

    Raises:
        DetectError: an unknown name or part, or weights that are unavailable or do not fit.
    """
    backbone = BACKBONES[name]()
    for remark in load_weights(backbone, name, str(weights)):
        if report is not None:
            report(remark)
    backbone.published = None  # frees the classifier, which no detector uses
    backbone.freeze(freeze)
    if image_size is not None:
        backbone.design_for(image_size)
    return backbone
