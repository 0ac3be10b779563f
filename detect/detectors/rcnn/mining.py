"""One linear SVM for each class, trained with hard negatives (Girshick et al. 2014, section 2.3).

The negatives are far too many for memory: they are looked through image by image, those that
the SVMs do not yet reject clearly are kept, and when enough new ones have come the SVMs are trained
again and the kept ones that have become easy are given up (Felzenszwalb et al. 2010, section 4.3).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.detectors.rcnn.features import RegionFeatures
from detect.detectors.rcnn.regions import RegionTable
from detect.ops.svm import LinearSVMs, fit_linear_svms
from detect.training import Watch

# Of the release: features are scaled so that their mean length is this one (rcnn_features.m), on
# which the costs of the SVMs and of the ridge regressions depend.
FEATURE_LENGTH = 20.0
# Images, spread over all, whose regions the mean is taken of.
NUM_MEASURED = 100

# Of the release (rcnn_train.m): the weight of positives, the factor of the bias, the margin below
# which a negative is easy, that below which a kept one is given up, and how many new ones of a
# class are waited for.
POSITIVE_WEIGHT = 2.0
BIAS_SCALE = 10.0
HARD_MARGIN = -1.0001
EVICTION_MARGIN = -1.2
RETRAIN_AFTER = 2000


@dataclass(frozen=True)
class Mined:
    """What mining has found.

    Attributes:
        svms: for features as the network gives them.
        num_fits: how often the SVMs were trained.
        num_kept: negatives that were kept at the end.
    """

    svms: LinearSVMs
    num_fits: int
    num_kept: int


def mine_svms(
    table: RegionTable,
    features: RegionFeatures,
    device: torch.device,
    cost: float,
    num_epochs: int,
    watch: Watch,
) -> Mined:
    """Train the SVMs of all classes.

    The classes share what is kept: a region that is hard for one class is a negative of every other
    class that it may be a negative of. That is what their problems have in common with the full
    ones, and lets all of them be solved at once. The paper keeps negatives for each class alone.

    Args:
        table: of all regions.
        features: of its rows.
        device: that the work is done on.
        cost: C of the SVMs; the release has 0.001.
        num_epochs: how often all images are looked through; the release has 1.
        watch: of the progress.
    """
    scale = FEATURE_LENGTH / mean_length(table, features, watch)
    positives = [values for _, values in features.rows(table.labels >= 0, watch)]
    rows = (table.labels >= 0).nonzero().flatten()
    dim = positives[0].shape[1] if positives else _dim(features, table, watch)
    miner = _Miner(
        torch.cat([torch.zeros(0, dim, dtype=torch.float16), *positives]).to(device),
        _targets(table, rows).to(device),
        scale,
        cost,
    )
    is_kept = torch.zeros(table.num_regions, dtype=torch.bool)
    for _ in range(num_epochs):
        for numbers, values in features.rows(torch.ones_like(is_kept), watch):
            is_hard = miner.hard(values.to(device), table.negatives[numbers].to(device)).cpu()
            is_new = is_hard.any(dim=1) & ~is_kept[numbers]
            # objects take part as positives already
            is_new &= table.labels[numbers] < 0
            if not is_new.any():
                continue
            is_kept[numbers[is_new]] = True
            miner.keep(numbers[is_new], values[is_new].to(device), is_hard[is_new], table)
            if miner.num_new > RETRAIN_AFTER:
                is_kept[miner.fit()] = False
        if miner.num_new:
            is_kept[miner.fit()] = False
    svms = miner.svms or miner.solve()
    scaled = replace(svms, weight=svms.weight * scale)
    return Mined(scaled, miner.num_fits, len(miner.rows))


class _Miner:
    """The positives, the negatives that are kept, and the SVMs between them.

    `rows`, `negatives` and `negative_targets` are of the last fit; what came since is beside them.
    """

    def __init__(
        self, positives: Tensor, targets: Int[Tensor, "N C"], scale: float, cost: float
    ) -> None:
        self.positives, self.scale, self.cost = positives, scale, cost
        self.positive_targets = targets
        self.negatives = positives[:0]
        self.negative_targets = targets[:0]
        self.rows = torch.zeros(0, dtype=torch.int64)
        self.svms: LinearSVMs | None = None
        self.num_fits = 0
        self._added: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, values, targets since then
        self._duals: Tensor | None = None  # of the positives and of the negatives that are left
        self._new = torch.zeros(targets.shape[1], dtype=torch.int64)

    @property
    def num_new(self) -> int:
        """Negatives since the last fit, of the class that has most of them."""
        return int(self._new.max()) if len(self._new) else 0

    def hard(self, values: Tensor, may_be: Bool[Tensor, "N C"]) -> Bool[Tensor, "N C"]:
        """Which are hard for which class; all of them, as long as there are no SVMs."""
        if self.svms is None:
            return may_be
        return may_be & (self._margins(values) > HARD_MARGIN)

    def keep(
        self,
        rows: Int[Tensor, "N"],
        values: Tensor,
        is_hard: Bool[Tensor, "N C"],
        table: RegionTable,
    ) -> None:
        """Take up negatives."""
        self._added.append((rows, values, _targets(table, rows).to(self.negative_targets)))
        self._new += is_hard.sum(dim=0)

    def fit(self) -> Int[Tensor, "N"]:
        """Train, and give up what has become easy: the rows of that are returned."""
        rows, values, targets = zip(*self._added, strict=True)
        self._added.clear()
        self.rows = torch.cat((self.rows, *rows))
        self.negatives = torch.cat((self.negatives, *values))
        self.negative_targets = torch.cat((self.negative_targets, *targets))
        self.svms = self.solve()
        self.num_fits += 1
        self._new.zero_()
        margins = self._margins(self.negatives)
        stays = ((self.negative_targets < 0) & (margins >= EVICTION_MARGIN)).any(dim=1)
        given_up = self.rows[~stays.cpu()]
        self.rows = self.rows[stays.cpu()]
        self.negatives = self.negatives[stays]
        self.negative_targets = self.negative_targets[stays]
        if self.svms.duals is not None:
            parts = self.svms.duals.split((len(self.positives), len(stays)))
            self._duals = torch.cat((parts[0], parts[1][stays]))
        return given_up

    def solve(self) -> LinearSVMs:
        """The SVMs for all that is kept; they begin where the last ones ended."""
        initial = self.svms
        if initial is not None and self._duals is not None:
            num_added = len(self.positives) + len(self.negatives) - len(self._duals)
            added = self._duals.new_zeros(num_added, self._duals.shape[1])
            initial = replace(initial, duals=torch.cat((self._duals, added)))
        return fit_linear_svms(
            torch.cat((self.positives, self.negatives)) * self.scale,
            torch.cat((self.positive_targets, self.negative_targets)),
            cost=self.cost,
            loss="hinge",
            positive_weight=POSITIVE_WEIGHT,
            bias_scale=BIAS_SCALE,
            initial=initial,
        )

    def _margins(self, values: Tensor) -> Float[Tensor, "N C"]:
        assert self.svms is not None
        return (values.float() * self.scale) @ self.svms.weight.T + self.svms.bias


def mean_length(table: RegionTable, features: RegionFeatures, watch: Watch) -> float:
    """The mean length of the features of images that are spread over all; 1 if there are none."""
    step = max(1, table.num_images // NUM_MEASURED)
    wanted = torch.zeros(table.num_regions, dtype=torch.bool)
    for image in range(0, table.num_images, step):
        wanted[table.rows_of(image)] = True
    lengths = [
        torch.linalg.vector_norm(values.float(), dim=1)
        for _, values in features.rows(wanted, watch)
    ]
    mean = float(torch.cat(lengths).double().mean()) if lengths else 0.0
    return mean if mean > 0 else 1.0


def _targets(table: RegionTable, rows: Int[Tensor, "N"]) -> Int[Tensor, "N C"]:
    # 1 for an object of the class, −1 for a negative, 0 for what the class ignores
    targets = -table.negatives[rows].long()
    labels = table.labels[rows].long()
    is_object = labels >= 0
    targets[is_object.nonzero().flatten(), labels[is_object]] = 1
    return targets


def _dim(features: RegionFeatures, table: RegionTable, watch: Watch) -> int:
    wanted = torch.zeros(table.num_regions, dtype=torch.bool)
    wanted[:1] = True
    return next((values.shape[1] for _, values in features.rows(wanted, watch)), 1)
