"""Linear support vector machines by Newton's method in the primal, for all classes at once.

The squared hinge is piecewise quadratic, and Newton's method with an exact line search ends after
some ten steps (Keerthi & DeCoste 2005). The hinge is approached from above through quadratic joints
of falling width (Chapelle 2007, section 4).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detect.ops.svm_problem import Problem, Solution

# Widths of the hinge's quadratic joint, from one problem to the next.
FIRST_WIDTH = 1.0
WIDTH_FACTOR = 0.25
NUM_WIDTHS = 8  # below 1e-4, rounding of the margins would be a good part of the width
# Gap, as a share of the objective, to which the problem of the first width is solved; it falls with
# the width.
FIRST_TOLERANCE = 0.02
# Newton steps on one problem; in float32 the last digits of the gradient may never fall.
MAX_NEWTON_STEPS = 50
# Newton's equation is solved to this share of the gradient.
FORCING = 0.1
MAX_CONJUGATE_STEPS = 100
MAX_LINE_STEPS = 40


def minimize(
    problem: Problem, point: Float[Tensor, "E C"], tolerance: float, max_steps: int
) -> Solution:
    """The best point that Newton's method reaches from `point`; `max_steps` bounds its steps.

    A class is done when its gap is at most `tolerance` times its objective.
    """
    num_classes = point.shape[1]
    widths: Sequence[float | None] = [None]
    if problem.loss == "hinge":
        widths = [FIRST_WIDTH * WIDTH_FACTOR**n for n in range(NUM_WIDTHS)]
    num_steps = 0
    best = point.clone()
    objective = torch.zeros(num_classes, dtype=torch.float64, device=point.device)
    gap = torch.full_like(objective, torch.inf)
    for width in widths:
        smooth = _Smooth(problem, width)
        steps_left = min(MAX_NEWTON_STEPS, max_steps - num_steps)
        own_tolerance = tolerance / 4
        if width is not None:
            own_tolerance = max(own_tolerance, FIRST_TOLERANCE * width / FIRST_WIDTH)
        point, steps = smooth.minimize(point, own_tolerance, steps_left)
        num_steps += steps
        values, gaps = smooth.certificate(point)
        # a narrower joint is nearer to the hinge, but may leave more to be done
        is_better = gaps < gap
        best[:, is_better] = point[:, is_better]
        objective, gap = values.where(is_better, objective), gaps.where(is_better, gap)
        if bool((gap <= tolerance * objective).all()) or num_steps >= max_steps:
            break
    return Solution(best, objective, gap, num_steps)


class _Smooth:
    # the objective with a loss that has a derivative: the squared hinge, or the hinge with a
    # quadratic joint of some width
    def __init__(self, problem: Problem, width: float | None) -> None:
        self.problem = problem
        self.width = width

    def duals(self, outputs: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        # the negative derivative of each example's loss by its margin: the dual variables
        slack = (1 - self.problem.signs * outputs).clamp(min=0)
        if self.width is None:
            return 2 * self.problem.costs * slack
        return self.problem.costs * (slack / self.width).clamp(max=1)

    def curvatures(self, outputs: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        slack = 1 - self.problem.signs * outputs
        if self.width is None:
            return 2 * self.problem.costs * (slack > 0)
        return self.problem.costs / self.width * ((slack > 0) & (slack < self.width))

    def minimize(
        self, point: Float[Tensor, "E C"], tolerance: float, max_iterations: int
    ) -> tuple[Float[Tensor, "E C"], int]:
        # Newton's method; classes that are done take no further part
        point = point.clone()
        active = torch.arange(point.shape[1], device=point.device)
        for step in range(max_iterations):
            part = _Smooth(self.problem.of_classes(active), self.width)
            own = point[:, active]
            outputs = part.problem.outputs(own)
            gradient = own - part.problem.combine(part.problem.signs * part.duals(outputs))
            # half the squared gradient is the duality gap of the smooth problem, exactly
            gap = gradient.double().square().sum(dim=0) / 2
            open_classes = gap > tolerance * part.objective(own, outputs)
            active = active[open_classes]
            if len(active) == 0:
                return point, step
            part = _Smooth(self.problem.of_classes(active), self.width)
            own, outputs = own[:, open_classes], outputs[:, open_classes]
            direction = _solve(part.problem, part.curvatures(outputs), -gradient[:, open_classes])
            length = part._line_search(own, direction, outputs, part.problem.outputs(direction))
            point[:, active] = own + length * direction
        return point, max_iterations

    def objective(
        self, point: Float[Tensor, "E C"], outputs: Float[Tensor, "N C"]
    ) -> Float[Tensor, "C"]:
        slack = (1 - self.problem.signs * outputs).clamp(min=0)
        if self.width is None:
            losses = slack.square()
        else:
            inner = slack.square() / (2 * self.width)
            losses = torch.where(slack < self.width, inner, slack - self.width / 2)
        losses = (self.problem.costs * losses).sum(dim=0, dtype=torch.float64)
        return point.double().square().sum(dim=0) / 2 + losses

    def certificate(self, point: Float[Tensor, "E C"]) -> tuple[Tensor, Tensor]:
        # the objective with the loss asked for, and its distance from that of the dual problem
        outputs = self.problem.outputs(point)
        duals = self.duals(outputs)
        objective = self.problem.objective(point, outputs)
        combined = self.problem.combine(self.problem.signs * duals)
        return objective, objective - self.problem.dual_objective(duals, combined)

    def _line_search(
        self,
        point: Float[Tensor, "E C"],
        direction: Float[Tensor, "E C"],
        outputs: Float[Tensor, "N C"],
        changes: Float[Tensor, "N C"],
    ) -> Float[Tensor, "C"]:
        # the least of the objective along the direction, where its derivative, which rises and is
        # piecewise linear, is zero: Newton's method between bounds
        signs = self.problem.signs
        linear = (point.double() * direction.double()).sum(dim=0)
        quadratic = direction.double().square().sum(dim=0)
        low = torch.zeros_like(linear)
        high = torch.full_like(linear, torch.inf)
        length = torch.ones_like(linear)
        for _ in range(MAX_LINE_STEPS):
            moved = outputs + length.float() * changes
            slope = linear + length * quadratic
            slope = slope - (signs * self.duals(moved) * changes).sum(dim=0, dtype=torch.float64)
            bend = (self.curvatures(moved) * changes.square()).sum(dim=0, dtype=torch.float64)
            low = torch.where(slope < 0, length, low)
            high = torch.where(slope >= 0, length, high)
            following = length - slope / (quadratic + bend)
            middle = torch.where(high.isinf(), 2 * length, (low + high) / 2)
            outside = ~((following > low) & (following < high))
            following = torch.where(outside, middle, following)
            is_done = (following - length).abs() <= 1e-3 * length
            length = following
            if bool(is_done.all()):
                break
        return length.float()


def _solve(
    problem: Problem, curvatures: Float[Tensor, "N C"], right: Float[Tensor, "E C"]
) -> Float[Tensor, "E C"]:
    """Newton's equation (I + Xᵀ D X) s = r of each class, by conjugate gradients."""
    # most examples lie where the loss is straight: they have no part in the equation
    rows = curvatures.any(dim=1).nonzero().squeeze(1)
    if len(rows) < len(curvatures) / 2:
        problem, curvatures = problem.of_examples(rows), curvatures[rows]
    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    squares = residual.square().sum(dim=0)
    goal = FORCING**2 * squares
    for _ in range(MAX_CONJUGATE_STEPS):
        product = direction + problem.combine(curvatures * problem.outputs(direction))
        length = squares / (direction * product).sum(dim=0).clamp(min=torch.finfo().tiny)
        length = torch.where(squares > goal, length, 0)  # classes that are solved stay
        solution += length * direction
        residual -= length * product
        before, squares = squares, residual.square().sum(dim=0)
        if bool((squares <= goal).all()):
            break
        direction = residual + (squares / before.clamp(min=torch.finfo().tiny)) * direction
    return solution
