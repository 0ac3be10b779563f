"""Box regressors by ridge regression (Girshick et al. 2014, appendix C)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.detectors.rcnn.mining import FEATURE_LENGTH

# Rows that are turned into float64 at a time.
BLOCK_ROWS = 2048


class BoxRegressors(NamedTuple):
    """Linear maps from the trunk's features to deltas.

    Attributes:
        weight: `[C, 4, D]`.
        bias: `[C, 4]`.
    """

    weight: Float[Tensor, "C 4 D"]
    bias: Float[Tensor, "C 4"]


@torch.no_grad()
def fit_box_regressors(
    features: Tensor,
    deltas: Float[Tensor, "N 4"],
    classes: Int[Tensor, "N"],
    num_classes: int,
    strength: float,
) -> BoxRegressors:
    """Fit the regressors of each class, in float64.

    As in the release, features are scaled to a mean length of 20 and have a constant 1 beside
    them, whose weight is held small as well; the mean of the deltas is taken off before. A class
    without examples leaves boxes as they are.

    Args:
        features: `[N, D]` float16 or float32; of proposals.
        deltas: from the proposals to their objects; see `encode_deltas`.
        classes: of the objects.
        num_classes: C.
        strength: λ; the paper has 1000.
    """
    dim = features.shape[1]
    weight = torch.zeros(num_classes, 4, dim, dtype=torch.float64, device=features.device)
    bias = weight.new_zeros(num_classes, 4)
    lengths = [
        torch.linalg.vector_norm(block.float(), dim=1) for block in features.split(BLOCK_ROWS)
    ]
    mean = float(torch.cat(lengths).double().mean()) if len(features) else 0.0
    scale = FEATURE_LENGTH / mean if mean > 0 else 1.0
    for label in range(num_classes):
        rows = (classes == label).nonzero().flatten()
        if len(rows) == 0:
            continue
        targets = deltas[rows].double()
        middle = targets.mean(dim=0)
        solution = _solve_ridge(features, rows, scale, targets - middle, strength)  # [D + 1, 4]
        weight[label] = scale * solution[:-1].T
        bias[label] = solution[-1] + middle
    return BoxRegressors(weight.float(), bias.float())


def _solve_ridge(
    features: Tensor,
    rows: Int[Tensor, "N"],
    scale: float,
    targets: Float[Tensor, "N 4"],
    strength: float,
) -> Float[Tensor, "E 4"]:
    """(XᵀX + λI)⁻¹ XᵀT, by the smaller of the two equations that give it."""
    dim = features.shape[1] + 1

    def block(chosen: Tensor) -> Tensor:
        part = features[chosen].double() * scale
        return torch.cat((part, part.new_ones(len(part), 1)), dim=1)

    solution: Tensor
    if len(rows) < dim:  # Xᵀ (XXᵀ + λI)⁻¹ T
        inputs = block(rows)
        gram = inputs @ inputs.T
        gram.diagonal().add_(strength)
        solution = inputs.T @ torch.linalg.solve(gram, targets)
        return solution
    gram = targets.new_zeros(dim, dim)
    right = targets.new_zeros(dim, 4)
    for chosen, part in zip(rows.split(BLOCK_ROWS), targets.split(BLOCK_ROWS), strict=True):
        inputs = block(chosen)
        gram += inputs.T @ inputs
        right += inputs.T @ part
    gram.diagonal().add_(strength)
    solution = torch.linalg.solve(gram, right)
    return solution
