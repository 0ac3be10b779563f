"""Suppression on a GPU: the kernels that `detect.ops.nms_triton` launches. Needs Triton.

Boxes lie group by group, each group by falling score, as coordinates `[4, N]`. They are cut into
blocks of 64, and blocks into panels. A mark is a word of 64 bits of one box: which boxes of one
block suppress it if they survive. The marks of block r for the boxes of block r + w begin at
`64 * (r * num_words + w)`; there are none across panels.

Triton infers the types. Sums and products are not fused, and quotients are rounded correctly, so
the IoU has the bits of a CPU's. Type checkers of tests would wrap the functions, which Triton
cannot read.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# ruff: noqa: ANN001, ANN201

from typing import no_type_check

import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]


@triton.jit
@no_type_check
def exceeds(
    coordinates, rows, is_row, columns, is_column, num_boxes, threshold, is_double: tl.constexpr
):
    """Whether the IoU of each row with each column is greater than the threshold: `[64, 64]`."""
    row = coordinates + rows
    column = coordinates + columns
    stride = tl.cast(num_boxes, tl.int64)
    row_x1 = tl.load(row, mask=is_row, other=0.0)
    row_y1 = tl.load(row + stride, mask=is_row, other=0.0)
    row_x2 = tl.load(row + 2 * stride, mask=is_row, other=0.0)
    row_y2 = tl.load(row + 3 * stride, mask=is_row, other=0.0)
    x1 = tl.load(column, mask=is_column, other=0.0)
    y1 = tl.load(column + stride, mask=is_column, other=0.0)
    x2 = tl.load(column + 2 * stride, mask=is_column, other=0.0)
    y2 = tl.load(column + 3 * stride, mask=is_column, other=0.0)
    width = tl.minimum(row_x2[:, None], x2[None, :]) - tl.maximum(row_x1[:, None], x1[None, :])
    height = tl.minimum(row_y2[:, None], y2[None, :]) - tl.maximum(row_y1[:, None], y1[None, :])
    intersection = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    row_areas = (row_x2 - row_x1) * (row_y2 - row_y1)
    areas = (x2 - x1) * (y2 - y1)
    union = (row_areas[:, None] + areas[None, :]) - intersection
    if is_double:  # noqa: SIM108  (only one of both has a type that compiles)
        iou = intersection / union
    else:
        iou = tl.math.div_rn(intersection, union)  # the plain operator may miss the last bits
    return iou > tl.load(threshold)  # 0/0 is nan, and nan is not greater


@triton.jit(do_not_specialize=["num_boxes", "num_words"])
@no_type_check
def mark(
    coordinates,
    ends,
    threshold,
    marks,
    num_boxes,
    num_words,
    words_at_a_time: tl.constexpr,
    is_double: tl.constexpr,
):
    """Write the marks that one block sets in some of the blocks behind it.

    A work item is a block and a few words: many for a large group, one for many small groups.
    """
    block = tl.program_id(0)
    first_word = tl.program_id(1) * words_at_a_time
    lanes = tl.arange(0, 64)
    rows = block * 64 + lanes
    is_row = rows < num_boxes
    row_ends = tl.load(ends + rows, mask=is_row, other=0)
    panel_end = (block // num_words + 1) * num_words * 64
    limit = tl.minimum(tl.max(row_ends, axis=0), panel_end)
    bits = tl.cast(1, tl.int64) << lanes.to(tl.int64)
    target = marks + (block.to(tl.int64) * num_words + first_word) * 64
    for word in range(words_at_a_time):
        column_start = (block + first_word + word) * 64
        if column_start < limit:
            columns = column_start + lanes
            is_column = columns < num_boxes
            suppresses = exceeds(
                coordinates, rows, is_row, columns, is_column, num_boxes, threshold, is_double
            )
            # behind the row and before the end of its group
            suppresses &= (columns[None, :] > rows[:, None]) & (
                columns[None, :] < row_ends[:, None]
            )
            words = tl.sum(tl.where(suppresses, bits[:, None], 0), axis=0)
            tl.store(target + word * 64 + lanes, words)


@triton.jit(do_not_specialize=["num_boxes", "first_block", "num_words"])
@no_type_check
def sweep(
    marks,
    firsts,
    ends,
    is_removed,
    survivors,
    is_kept,
    num_boxes,
    first_block,
    num_words,
    blocks_at_a_time: tl.constexpr,
):
    """Decide the groups that begin in one block of a panel.

    All but the last of them end in this block; that one is followed to its end or the panel's. A
    group continued from an earlier panel counts as beginning here; its survivors there have set
    `is_removed`.
    """
    own_block = first_block + tl.program_id(0)
    own_start = own_block * 64
    panel_start = first_block * 64
    last_row = tl.minimum(own_start + 63, num_boxes - 1)
    goes_on = tl.maximum(tl.load(firsts + last_row), panel_start) >= own_start
    stop = tl.minimum(tl.load(ends + last_row), panel_start + num_words * 64)
    num_blocks = tl.where(goes_on, (stop - own_start + 63) // 64, 1)
    lanes = tl.arange(0, 64)
    one = tl.cast(1, tl.int64)
    bits = one << lanes.to(tl.int64)
    for step in range(num_blocks):
        block = own_block + step
        rows = block * 64 + lanes
        is_row = rows < num_boxes
        row_firsts = tl.maximum(tl.load(firsts + rows, mask=is_row, other=0), panel_start)
        is_own = is_row & (row_firsts >= own_start) & (row_firsts < own_start + 64)
        hits = tl.load(is_removed + rows, mask=is_row, other=1).to(tl.int32)
        for start in range(0, step, blocks_at_a_time):
            earlier = start + tl.arange(0, blocks_at_a_time)
            is_earlier = earlier < step
            kept = tl.load(survivors + own_block + earlier, mask=is_earlier, other=0)
            place = (own_block + earlier).to(tl.int64) * num_words + (step - earlier)
            words = tl.load(
                marks + place[:, None] * 64 + lanes[None, :], mask=is_earlier[:, None], other=0
            )
            found = ((words & kept[:, None]) != 0).to(tl.int32)
            hits = tl.maximum(hits, tl.max(found, axis=0))
        candidates = tl.sum(tl.where(is_own & (hits == 0), bits, 0), axis=0)
        # the greedy rule within the block, one box after another
        own_marks = marks + block.to(tl.int64) * num_words * 64
        chosen = tl.cast(0, tl.int64)
        for lane in tl.static_range(64):
            bit = one << lane
            is_free = ((candidates & bit) != 0) & ((tl.load(own_marks + lane) & chosen) == 0)
            chosen = tl.where(is_free, chosen | bit, chosen)
        tl.store(is_kept + rows, ((chosen & bits) != 0).to(tl.int8), mask=is_own)
        if step + 1 < num_blocks:  # one group alone goes on from a block, so one program writes
            tl.store(survivors + block, chosen)
        tl.debug_barrier()  # the next step reads what this one has written


@triton.jit(do_not_specialize=["num_boxes", "panel_start", "panel_end"])
@no_type_check
def remove(
    coordinates,
    firsts,
    ends,
    threshold,
    is_kept,
    is_removed,
    num_boxes,
    panel_start,
    panel_end,
    rows_at_a_time: tl.constexpr,
    is_double: tl.constexpr,
):
    """Let survivors of a panel suppress a block behind it, of the group that goes on there."""
    lanes = tl.arange(0, 64)
    column_start = panel_end + tl.program_id(0) * 64
    end = tl.load(ends + panel_end - 1)
    if column_start < end:
        columns = column_start + lanes
        is_column = columns < end
        group_first = tl.load(firsts + panel_end - 1)
        first_row = panel_start + tl.program_id(1) * rows_at_a_time
        last_row = tl.minimum(first_row + rows_at_a_time, panel_end)
        hits = tl.zeros((64,), tl.int32)
        for row_start in range(first_row, last_row, 64):
            rows = row_start + lanes
            is_row = (tl.load(is_kept + rows) != 0) & (rows >= group_first)
            suppresses = exceeds(
                coordinates, rows, is_row, columns, is_column, num_boxes, threshold, is_double
            )
            found = (suppresses & is_row[:, None]).to(tl.int32)
            hits = tl.maximum(hits, tl.max(found, axis=0))
        ones = tl.full((64,), 1, tl.int8)
        # several programs may write here, but only ever the same
        tl.store(is_removed + columns, ones, mask=is_column & (hits > 0))
