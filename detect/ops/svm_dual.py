"""Linear support vector machines by dual coordinate descent, for all classes at once.

Hsieh et al. 2008, "A dual coordinate descent method for large-scale linear SVM", by blocks: one
product gives the outputs of a block of examples for all classes, the block's Gram matrix keeps them
up to date while the dual variables move one at a time (algorithm 1), and another product applies
the moves to the weights.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.ops.svm_kernels import compiled_sweep
from detect.ops.svm_problem import Problem, Solution

# For 20 classes of 20,000 examples with 1,024 features, blocks of 32 or 128 were no faster.
BLOCK_SIZE = 64
# Over one block; usually three or four suffice, but one would mean half as many global passes more.
MAX_BLOCK_PASSES = 50
# Passes over all examples with one division into blocks, after which the gap is measured. A new
# division needs new Gram matrices, but the variables of a block constrain one another: with a fixed
# division there are three times as many passes.
ROUND_PASSES = 3
SEED = 0  # of the order of the examples


def minimize(
    problem: Problem,
    point: Float[Tensor, "E C"],
    duals: Float[Tensor, "N C"] | None,
    tolerance: float,
    max_passes: int,
) -> Solution:
    """The best of `point` and those that coordinate descent passes; features are on the CPU.

    It starts from `duals`, clipped to their bounds (zero if None), makes at most `max_passes` over
    the examples, and ends a class when its gap is at most `tolerance` times its objective.
    """
    generator = torch.Generator().manual_seed(SEED)
    duals = torch.zeros_like(problem.costs) if duals is None else _clipped(problem, duals)
    best, final_duals = point.clone(), duals.clone()
    objective = torch.full((point.shape[1],), torch.inf, dtype=torch.float64)
    bound = torch.zeros_like(objective)  # that of duals which are all zero
    columns = torch.arange(point.shape[1])  # classes that are not done
    num_passes = 0
    while True:
        # recomputed from the duals, since rounding errors add up
        dual_point = problem.combine(problem.signs * duals)
        outputs = problem.outputs(point)
        values = problem.objective(point, outputs)
        is_better = values < objective[columns]
        best[:, columns[is_better]] = point[:, is_better]
        objective[columns] = values.minimum(objective[columns])
        bound[columns] = problem.dual_objective(duals, dual_point).maximum(bound[columns])
        final_duals[:, columns] = duals
        is_open = (objective - bound > tolerance * objective)[columns]
        if num_passes >= max_passes or not bool(is_open.any()):
            return Solution(best, objective, objective - bound, num_passes, final_duals)
        if not bool(is_open.all()):
            columns, problem = columns[is_open], problem.of_classes(is_open)
            duals, dual_point = duals[:, is_open], dual_point[:, is_open]
            outputs = outputs[:, is_open]
        rows = _unsettled(problem, duals, outputs)
        round_passes = min(ROUND_PASSES, max_passes - num_passes)
        point = _descend(problem, duals, dual_point, rows, round_passes, generator)
        num_passes += round_passes


def _clipped(problem: Problem, duals: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    duals = duals.contiguous().clamp(min=0)
    return duals.minimum(problem.costs) if problem.loss == "hinge" else duals * (problem.costs > 0)


def _unsettled(
    problem: Problem, duals: Float[Tensor, "N C"], outputs: Float[Tensor, "N C"]
) -> Int[Tensor, "R"]:
    """The examples with a variable that may move, for at least one class.

    It may not at a bound where the derivative points outwards (Hsieh et al. 2008, section 3.2, but
    without a margin, since all are checked after each round).
    """
    slack = 1 - problem.signs * outputs
    is_settled = (problem.costs == 0) | ((duals == 0) & (slack < 0))
    if problem.loss == "hinge":
        is_settled |= (duals == problem.costs) & (slack > 0)
    return (~is_settled).any(dim=1).nonzero().squeeze(1)


def _descend(
    problem: Problem,
    duals: Float[Tensor, "N C"],
    dual_point: Float[Tensor, "E C"],
    rows: Int[Tensor, "R"],
    num_passes: int,
    generator: torch.Generator,
) -> Float[Tensor, "E C"]:
    """Move the duals of `rows`, and return the mean point of the last pass.

    The point oscillates about the solution; the objective of the mean is several times nearer to
    the minimum than that of the last point.
    """
    sweep = compiled_sweep()
    arrays = [values.numpy() for values in (duals, problem.signs, problem.costs)]
    point = dual_point.T.contiguous()
    weight, bias = point[:, :-1], point[:, -1:]
    scale, is_squared = problem.bias_scale, problem.loss == "squared_hinge"
    blocks = rows[torch.randperm(len(rows), generator=generator)].split(BLOCK_SIZE)
    grams: dict[int, Tensor] = {}
    buffer = problem.features.new_empty(BLOCK_SIZE, problem.features.shape[1])
    total = torch.zeros_like(point)
    for number in range(num_passes):
        for index in torch.randperm(len(blocks), generator=generator).tolist():
            block = blocks[index]
            examples = torch.index_select(problem.features, 0, block, out=buffer[: len(block)])
            examples = examples.float()
            if index not in grams:
                grams[index] = examples @ examples.T + scale**2
            outputs = weight @ examples.T + scale * bias
            gram = grams[index].numpy()
            changes = torch.from_numpy(
                sweep(outputs.numpy(), gram, block.numpy(), *arrays, is_squared, MAX_BLOCK_PASSES)
            )
            weight.addmm_(changes, examples)
            bias.add_(changes.sum(dim=1, keepdim=True), alpha=scale)
            if number == num_passes - 1:
                total += point
    return (total / len(blocks)).T  # without rows there is one block, which is empty
