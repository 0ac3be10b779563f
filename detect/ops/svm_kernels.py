"""The inner loop of dual coordinate descent: compiled with numba where it is installed, else numpy.

Both do the same steps in the same order, up to rounding. Types are numba's to infer.
"""

# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def"

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from detect.ops.compiled import compiled

# Share of the greatest move of a block's first pass, below which the block is left: where costs are
# high, converging on blocks saves most of the passes over all examples.
STILL = 0.1


def sweep(outputs, gram, rows, duals, signs, costs, is_squared, max_passes):
    """Minimize the dual problem by one variable at a time, over the examples of one block.

    Hsieh et al. 2008, algorithm 1, some passes over the same examples; products with features are
    replaced by the block's Gram matrix.

    Args:
        outputs: `[C, B]` float32, w · x + b of the block's examples; overwritten.
        gram: `[B, B]` float32, the products of the examples, including the bias.
        rows: `[B]` int64; the block's examples among the N.
        duals: `[N, C]` float32; those of the block are overwritten.
        signs: `[N, C]` float32; 1, −1, or 0 for an ignored example.
        costs: `[N, C]` float32.
        is_squared: whether the loss is the squared hinge.
        max_passes: over the block; a class stops after one in which no variable moves by more than
            `STILL` times the greatest move of the first.

    Returns:
        `[C, B]` float32; by how much of each example the weights of each class change.
    """
    num_classes, num_rows = outputs.shape
    changes = np.zeros_like(outputs)
    for label in range(num_classes):
        own = outputs[label]
        first = 0.0
        for number in range(max_passes):
            greatest = 0.0
            for index in range(num_rows):
                row = rows[index]
                sign, cost = signs[row, label], costs[row, label]
                if cost == 0:
                    continue
                dual = duals[row, label]
                # the squared hinge has no bound, but a curvature of its own
                upper = np.float32(np.inf) if is_squared else cost
                curvature = 0.5 / cost if is_squared else 0.0
                gradient = sign * own[index] - 1 + curvature * dual
                moved = min(max(dual - gradient / (gram[index, index] + curvature), 0), upper)
                change = np.float32(sign * (np.float32(moved) - dual))
                if change == 0:
                    continue
                greatest = max(greatest, float(abs(change)))
                duals[row, label] = moved
                changes[label, index] += change
                for other in range(num_rows):
                    own[other] += change * gram[index, other]
            if number == 0:
                first = greatest
            if greatest <= STILL * first:
                break
    return changes


def sweep_plainly(outputs, gram, rows, duals, signs, costs, is_squared, max_passes):
    """As `sweep`, with numpy: all classes at once, in place of one by one."""
    own, signs, costs = duals[rows], signs[rows], costs[rows]
    before = own.copy()
    outputs = outputs.T.copy()
    is_used = costs > 0
    uppers = np.where(is_used & is_squared, np.float32(np.inf), costs)
    halves = np.divide(np.float32(0.5), costs, out=np.zeros_like(costs), where=is_used)
    curvatures = halves if is_squared else np.zeros_like(costs)
    diagonals = gram.diagonal()[:, None] + curvatures
    is_open = np.ones(own.shape[1], bool)
    first = np.zeros(own.shape[1])
    for number in range(max_passes):
        greatest = np.zeros_like(first)
        for index in range(len(rows)):
            dual = own[index]
            gradient = signs[index] * outputs[index] - 1 + curvatures[index] * dual
            moved = np.maximum(dual - gradient / diagonals[index], 0)
            moved = np.where(is_open, np.minimum(moved, uppers[index]), dual)
            change = signs[index] * (moved - dual)
            outputs += gram[index][:, None] * change
            greatest = np.maximum(greatest, np.abs(change))
            own[index] = moved
        if number == 0:
            first = greatest
        is_open &= greatest > STILL * first
        if not is_open.any():
            break
    duals[rows] = own
    return np.ascontiguousarray((signs * (own - before)).T)


@functools.cache
def compiled_sweep() -> Callable[..., Any]:
    """`sweep` compiled, or `sweep_plainly` without numba."""
    return compiled(sweep) or sweep_plainly
