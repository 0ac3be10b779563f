"""Linear support vector machines, all classes at once.

The problem of each class is that of LIBLINEAR (Fan et al. 2008), with the bias as one feature more:

    minimize  ½‖w‖² + ½ b² / s² + Σᵢ cᵢ ξ(yᵢ (w · xᵢ + b)),   b = s · w₀

with ξ(m) = max(0, 1 − m) (hinge) or its square. The classes differ only in their targets, so each
product with the features serves all. Two solvers reach the same solution: coordinate descent in the
dual, small steps that suit a CPU, and Newton's method in the primal, few large products for a GPU.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.ops import svm_dual, svm_newton
from detect.ops.svm_problem import HingeLoss, Problem, Solution

SVMSolver = Literal["auto", "newton", "dual"]

MAX_NEWTON_STEPS = 200
MAX_DUAL_PASSES = 1000  # as LIBLINEAR
# Passes after which `auto` leaves the rest to Newton's method, which takes about as many products;
# coordinate descent that has not ended by then (cost high for the features) may take thousands.
AUTO_DUAL_PASSES = 150


@dataclass(frozen=True)
class LinearSVMs:
    """Linear classifiers w · x + b of C classes.

    Attributes:
        weight: `[C, D]`.
        bias: `[C]`.
        objective: `[C]` float64; at these weights.
        gap: `[C]` float64; the minimum is at least `objective − gap`, by the dual problem.
        num_iterations: Newton steps, or passes over the examples.
        duals: `[N, C]`, each from 0 to the example's cost (hinge) or unbounded (squared hinge),
            from which the dual solver can continue; None from Newton's method.
    """

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, "C"]
    objective: Float[Tensor, "C"]
    gap: Float[Tensor, "C"]
    num_iterations: int
    duals: Float[Tensor, "N C"] | None = None


@torch.no_grad()
def fit_linear_svms(
    features: Float[Tensor, "N D"],
    targets: Int[Tensor, "N C"],
    *,
    cost: float = 1.0,
    loss: HingeLoss = "squared_hinge",
    positive_weight: float = 1.0,
    bias_scale: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int | None = None,
    initial: LinearSVMs | None = None,
    solver: SVMSolver = "auto",
) -> LinearSVMs:
    """Train one linear SVM for each class, on one set of features.

    Args:
        features: float32, or float16 to halve the memory, on any device.
        targets: 1 for a positive of the class, −1 for a negative, 0 for an ignored example.
        cost: C, of each example's loss.
        loss: `hinge` or `squared_hinge`.
        positive_weight: factor of the cost of positives.
        bias_scale: s; the larger, the less the bias is regularized.
        tolerance: a class is done when its gap is at most this share of its objective.
        max_iterations: Newton steps in all (by default 200) or passes over the examples (1000),
            after which the best solution is returned. `auto` counts both.
        initial: where to start, such as the result for fewer examples. The dual solver continues
            from `duals` if there is one for each example; extend them with zeros for new examples.
            Without them it starts over, and the weights are kept only until it has better ones.
        solver: `dual` for coordinate descent, on the CPU only and much faster with numba (the extra
            `fast`); `newton`; or `auto`: on the CPU `dual`, then `newton` for the classes that are
            not done after 150 passes; elsewhere `newton`.

    Returns:
        On the device of the features. With a zero objective (no examples), all is zero.

    Raises:
        ValueError: if `solver` is `dual` and the features are not on the CPU.
    """
    is_on_cpu = features.device.type == "cpu"
    if solver == "dual" and not is_on_cpu:
        raise ValueError(f"the dual solver: expected features on the CPU, not on {features.device}")
    problem = Problem(features, targets, cost, loss, positive_weight, bias_scale)
    point = torch.zeros(features.shape[1] + 1, targets.shape[1], device=features.device)
    if initial is not None:
        point[:-1], point[-1] = initial.weight.T, initial.bias / bias_scale
    duals = None if initial is None else initial.duals
    if duals is not None and len(duals) != len(features):
        duals = None
    if solver == "newton" or not is_on_cpu:
        num_steps = MAX_NEWTON_STEPS if max_iterations is None else max_iterations
        found = svm_newton.minimize(problem, point, tolerance, num_steps)
    elif solver == "dual":
        num_passes = MAX_DUAL_PASSES if max_iterations is None else max_iterations
        found = svm_dual.minimize(problem, point, duals, tolerance, num_passes)
    else:
        found = _minimize_by_both(problem, point, duals, tolerance, max_iterations)
    return LinearSVMs(
        found.point[:-1].T.contiguous(),
        found.point[-1] * bias_scale,
        found.objective,
        found.gap,
        found.num_iterations,
        found.duals,
    )


def _minimize_by_both(
    problem: Problem,
    point: Float[Tensor, "E C"],
    duals: Float[Tensor, "N C"] | None,
    tolerance: float,
    max_iterations: int | None,
) -> Solution:
    if max_iterations is None:
        max_iterations = AUTO_DUAL_PASSES + MAX_NEWTON_STEPS
    num_passes = min(max_iterations, AUTO_DUAL_PASSES)
    found = svm_dual.minimize(problem, point, duals, tolerance, num_passes)
    is_open = found.gap > tolerance * found.objective
    num_steps = max_iterations - found.num_iterations
    if num_steps == 0 or not bool(is_open.any()):
        return found
    rest = svm_newton.minimize(
        problem.of_classes(is_open), found.point[:, is_open], tolerance, num_steps
    )
    return found.improved(is_open, rest)
