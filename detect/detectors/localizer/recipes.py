"""The orders in which a classification head and a regression head are trained."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from detect.backbones import Backbone
from detect.structures import Batch
from detect.training import Phase, Plan

Recipe = Literal["frozen", "finetune_all", "joint", "regress", "none"]

PHASE_NAMES = ("classify", "regress", "finetune", "joint")

Losses = dict[str, Float[Tensor, ""]]


@runtime_checkable
class TwoHeads(Protocol):
    """A network with a classification and a regression head.

    Attributes:
        backbone: trunk and head.
        classifier: the classification head's last layer.
        regressor: the regression head.
        attach: where it sits: `trunk` or `head`.
    """

    backbone: Backbone
    classifier: nn.Linear
    regressor: nn.Sequential
    attach: Literal["trunk", "head"]

    def loss(self, batch: Batch) -> Losses:
        """Of both heads."""
        ...

    def classification_loss(self, batch: Batch) -> Losses:
        """Of the classification head."""
        ...

    def heads_loss(self, batch: Batch) -> Losses:
        """Of both heads; the gradient ends at the trunk's map."""
        ...

    def regression_loss(self, batch: Batch) -> Losses:
        """Of the regression head, at which the gradient ends."""
        ...


def recipe_phases(detector: TwoHeads, recipe: Recipe, plan: Plan) -> Sequence[Phase]:
    """The phases of a recipe.

    Args:
        detector: an `nn.Module` with the two heads.
        recipe: `frozen` trains backbone and classification head, then the regression head alone on
            what stands (Sermanet et al. 2014, section 4.2: "we fix the feature extraction layers
            and train the regression network"). Behind the backbone's head, the fully connected
            layers between trunk and regression head are trained with it, and so is the
            classification head, which shares them; the trunk stays. `finetune_all` then goes on
            with everything; `joint` trains everything at once; `regress` trains the regression
            head and nothing else, for a classifier that was loaded; `none` trains nothing.
        plan: gives the settings.
    """
    assert isinstance(detector, nn.Module)
    if recipe == "none":
        return []
    if recipe == "joint":
        return [plan.gradient_phase("joint", detector, detector.loss)]
    regress = plan.gradient_phase("regress", detector.regressor, detector.regression_loss)
    if recipe == "regress":
        return [regress]
    classification = nn.ModuleList([detector.backbone, detector.classifier])
    classify = plan.gradient_phase("classify", classification, detector.classification_loss)
    if detector.attach == "head":
        heads = nn.ModuleList([detector.backbone.head, detector.classifier, detector.regressor])
        regress = plan.gradient_phase("regress", heads, detector.heads_loss)
    if recipe == "frozen":
        return [classify, regress]
    return [classify, regress, plan.gradient_phase("finetune", detector, detector.loss)]
