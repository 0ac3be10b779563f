"""The regions of all training images with their features, found when they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from detect.detectors.ranges import Count, Finite, Positive, Share, Weight
from detect.detectors.rcnn.features import (
    GIGABYTE,
    Embed,
    FeatureSizes,
    RegionFeatures,
    StoredFeatures,
    StreamedFeatures,
    feature_address,
)
from detect.detectors.rcnn.mining import mine_svms
from detect.detectors.rcnn.regions import RegionTable, tabulate_regions
from detect.training import ImageSource, Plan, Watch

FeatureCache = Literal["disk", "none"]


# Scores below are left out: for SVMs the margin that the release begins with (rcnn_test.m), for the
# softmax a probability.
LEAST_MARGIN = -1.5
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True)
class SVMSettings:
    """SVMs that are trained on the features of all regions, with hard negatives.

    Attributes:
        svm: whether they give the scores, in place of the softmax.
        svm_cost: C of the SVMs, on features of mean length 20.
        negative_iou: IoU with every object of a class below which a region is a negative of its
            SVM (Girshick et al. 2014, section 2.3: 0.3).
        mining_epochs: how often all images are looked through for hard negatives.
        feature_cache: where the features of all training regions are kept: on the `disk` (float16)
            while they are needed, or nowhere (`none`): they are computed again for each pass.
        feature_budget: the most that they may take on the disk, in GB (10⁹ bytes).
        score_threshold: scores below are left out; None takes a margin of −1.5 with SVMs and a
            probability of 0.01 with the softmax.
    """

    svm: bool = False
    svm_cost: Positive = 0.001
    negative_iou: Share = 0.3
    mining_epochs: Count = 1
    feature_cache: FeatureCache = "disk"
    feature_budget: Weight = 20.0
    score_threshold: Finite | None = None

    def least_score(self, has_margins: bool) -> float:
        """The score threshold, for margins of SVMs or for probabilities."""
        if self.score_threshold is not None:
            return self.score_threshold
        return LEAST_MARGIN if has_margins else LEAST_PROBABILITY


@dataclass(frozen=True)
class RegionSettings:
    """What is wanted of the regions.

    Attributes:
        num_classes: C.
        max_proposals: of each image.
        regression_iou: least IoU with its object of a proposal that box regression learns from.
        dim: numbers of a region's features.
        trunk_dim: numbers of the features for box regression; 0 without it.
        svm: how SVMs are trained, and where features are kept.
    """

    num_classes: int
    max_proposals: int
    regression_iou: float
    dim: int
    trunk_dim: int
    svm: SVMSettings


class TrainingRegions:
    """All regions of the training images and their features.

    Args:
        settings: what is wanted.
        plan: gives the images, and the folder where features are kept.
        embed: gives the features.
        network: that they are computed by.
        address: further settings that they depend on.
    """

    def __init__(
        self,
        settings: RegionSettings,
        plan: Plan,
        embed: Embed,
        network: nn.Module,
        address: Mapping[str, Any],
    ) -> None:
        if plan.images is None or plan.cache is None:
            raise ValueError("the plan needs the training images and a folder for features")
        self.settings = settings
        self.embed, self.network, self.address = embed, network, address
        self.source: ImageSource = plan.images
        self.cache: Path = plan.cache
        self._table: RegionTable | None = None
        self._features: RegionFeatures | None = None

    def table(self, watch: Watch) -> RegionTable:
        """The regions, labeled."""
        if self._table is None:
            settings = self.settings
            self._table = tabulate_regions(
                self.source,
                settings.num_classes,
                settings.max_proposals,
                settings.svm.negative_iou,
                settings.regression_iou,
                watch,
            )
        return self._table

    def features(self, watch: Watch) -> RegionFeatures:
        """Their features; what is kept on the disk is not complete yet."""
        if self._features is None:
            table = self.table(watch)
            if self.settings.svm.feature_cache == "none":
                self._features = StreamedFeatures(self.source, table, self.embed)
            else:
                self._features = StoredFeatures(
                    self.cache / f"regions-{self._address()}",
                    self._sizes(table),
                    self.source,
                    table,
                    self.embed,
                    self.settings.svm.feature_budget * GIGABYTE,
                )
        return self._features

    def prepare(self, watch: Watch) -> dict[str, int]:
        """Compute and keep the features, if they are to be kept; tell their size on the disk."""
        features = self.features(watch)
        sizes = self._sizes(self.table(watch))
        if isinstance(features, StoredFeatures):
            watch.say(f"{sizes}; in {features.folder}")
            features.complete(watch)
            return {"cache_bytes": sizes.num_bytes}
        watch.say(f"{sizes} would be kept; they are computed for each pass instead")
        return {"cache_bytes": 0}

    @torch.no_grad()
    def fit_svms(self, svms: nn.Linear, watch: Watch) -> None:
        """Train the SVMs of all classes with hard negatives; a layer takes what comes of it."""
        mined = mine_svms(
            self.table(watch),
            self.features(watch),
            svms.weight.device,
            self.settings.svm.svm_cost,
            self.settings.svm.mining_epochs,
            watch,
        )
        svms.weight.copy_(mined.svms.weight)
        svms.bias.copy_(mined.svms.bias)
        watch.say(
            f"trained {mined.num_fits} times; {mined.num_kept:,} hard negatives kept at the end"
        )

    def remove(self) -> None:
        """Delete the cached features."""
        if isinstance(self._features, StoredFeatures):
            self._features.remove()

    def _sizes(self, table: RegionTable) -> FeatureSizes:
        return FeatureSizes(
            table.num_images,
            table.num_regions,
            self.settings.dim,
            len(table.classes) if self.settings.trunk_dim else 0,
            self.settings.trunk_dim,
        )

    def _address(self) -> str:
        settings = {
            **self.address,
            "images": self.source.fingerprint,
            "max_proposals": self.settings.max_proposals,
            "box_regression": self.settings.trunk_dim > 0,
            "regression_iou": self.settings.regression_iou,
            "device": next(self.network.parameters()).device.type,
        }
        return feature_address(settings, self.network)


def solved_layer(inputs: int, outputs: int) -> nn.Linear:
    """A layer that is solved for, not descended on; zeros until then."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer.requires_grad_(False)
