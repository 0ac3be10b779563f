"""What linear support vector machines minimize, its dual, and products with the examples."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

HingeLoss = Literal["hinge", "squared_hinge"]

# Rows of features that are converted to float32 at once.
BLOCK_ROWS = 16384


class Problem:
    """The examples of C classes, and the objective as `detect.ops.svm` states it.

    A point is `[D + 1, C]`: the weights, and in its last row the bias divided by s. The dual
    variables are `[N, C]`, from 0 to the cost (hinge) or without bound (squared hinge); the point
    that belongs to them is the sum of the examples, each times its sign and its dual variable.

    Attributes:
        features: `[N, D]` float32 or float16.
        signs: `[N, C]` float32; the targets.
        costs: `[N, C]` float32; 0 where a class ignores the example.
        bias_scale: s, the value of the feature that belongs to the bias.
        loss: of the margins.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        cost: float,
        loss: HingeLoss,
        positive_weight: float,
        bias_scale: float,
    ) -> None:
        targets = targets.contiguous()  # the layout that the inner loop is compiled for
        self.features = features
        self.signs = targets.float()
        self.costs = cost * torch.where(targets > 0, positive_weight, 1.0) * (targets != 0)
        self.bias_scale = bias_scale
        self.loss: HingeLoss = loss

    def outputs(self, point: Float[Tensor, "E C"]) -> Float[Tensor, "N C"]:
        """The outputs w · x + b of all examples."""
        weight, bias = point[:-1], self.bias_scale * point[-1]
        blocks = [block.float() @ weight for block in self.features.split(BLOCK_ROWS)]
        return torch.cat(blocks) + bias if blocks else point.new_zeros(0, point.shape[1])

    def combine(self, factors: Float[Tensor, "N C"]) -> Float[Tensor, "E C"]:
        """The sum of the examples, each times its factor for each class."""
        total = factors.new_zeros(self.features.shape[1] + 1, factors.shape[1])
        pairs = zip(self.features.split(BLOCK_ROWS), factors.split(BLOCK_ROWS), strict=True)
        for block, factor in pairs:
            total[:-1] += (factor.T @ block.float()).T  # much faster than blockᵀ @ factor
        total[-1] = self.bias_scale * factors.sum(dim=0)
        return total

    def of_classes(self, columns: Tensor) -> "Problem":
        """The same for some of the classes; `columns` are indices or a mask."""
        part = copy.copy(self)
        part.signs, part.costs = self.signs[:, columns], self.costs[:, columns]
        return part

    def of_examples(self, rows: Tensor) -> "Problem":
        """The same for the examples with the indices `rows`."""
        part = copy.copy(self)
        part.features = self.features[rows]
        part.signs, part.costs = self.signs[rows], self.costs[rows]
        return part

    def objective(
        self, point: Float[Tensor, "E C"], outputs: Float[Tensor, "N C"]
    ) -> Float[Tensor, "C"]:
        """What is minimized, in float64, at the point with these `outputs`."""
        slack = (1 - self.signs * outputs).clamp(min=0)
        losses = slack if self.loss == "hinge" else slack.square()
        losses = (self.costs * losses).sum(dim=0, dtype=torch.float64)
        return point.double().square().sum(dim=0) / 2 + losses

    def dual_objective(
        self, duals: Float[Tensor, "N C"], point: Float[Tensor, "E C"]
    ) -> Float[Tensor, "C"]:
        """A lower bound of every objective, in float64, by `duals` and their point."""
        gains = duals.sum(dim=0, dtype=torch.float64)
        if self.loss == "squared_hinge":
            is_used = self.costs > 0
            penalty = duals.double().square() / (4 * self.costs).where(is_used, 1)
            gains = gains - penalty.sum(dim=0)
        return gains - point.double().square().sum(dim=0) / 2


@dataclass(frozen=True)
class Solution:
    """What a solver found for C classes.

    Attributes:
        point: `[D + 1, C]`.
        objective: `[C]` float64; at the point.
        gap: `[C]` float64; at most this far below is the minimum.
        num_iterations: of the solver.
        duals: `[N, C]`; None from a solver without.
    """

    point: Float[Tensor, "E C"]
    objective: Float[Tensor, "C"]
    gap: Float[Tensor, "C"]
    num_iterations: int
    duals: Float[Tensor, "N C"] | None = None

    def improved(self, columns: Tensor, other: "Solution") -> "Solution":
        """The better of both for the classes `columns` of `other`, with the duals of this one."""
        is_better = other.objective < self.objective[columns]
        point, objective = self.point.clone(), self.objective.clone()
        bound = self.objective - self.gap
        point[:, columns] = other.point.where(is_better, point[:, columns])
        objective[columns] = other.objective.minimum(objective[columns])
        bound[columns] = (other.objective - other.gap).maximum(bound[columns])
        num_iterations = self.num_iterations + other.num_iterations
        return Solution(point, objective, objective - bound, num_iterations, self.duals)
