"""Timing contenders in turn, and the row of a report that comes of it."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

# What is reported of a contest:
#   name, sizes         of the task
#   ours_median_s       seconds
#   rival               its name; None where there is nothing to compare with
#   rival_median_s      seconds, likewise
#   ratio               the median of ours over that of the rival; below 1, ours is faster
#   spread              {"ours_s": [least, greatest], "rival_s": …, "ratio": …}, of the repeats
#   ours_peak_mib, rival_peak_mib   memory beyond that of the input, where it was measured
Row = dict[str, Any]


def time_in_turn(
    contenders: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each repeat of each contender; one after the other, so that they share the load.

    Args:
        contenders: by name; what they build up is collected before the next one starts.
        repeats: of each.
        device: whose work is waited for.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            gc.collect()
            synchronize(device)
            begin = time.perf_counter()
            run()
            synchronize(device)
            times[name].append(time.perf_counter() - begin)
    return times


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row_of(
    name: str,
    sizes: str,
    ours: Sequence[float],
    rival: str | None = None,
    theirs: Sequence[float] = (),
    **further: Any,
) -> Row:
    """The row of one contest, from the seconds of each repeat."""
    spread: dict[str, Any] = {"ours_s": [min(ours), max(ours)]}
    row: Row = {
        "name": name,
        "sizes": sizes,
        "ours_median_s": statistics.median(ours),
        "rival": rival,
        "rival_median_s": statistics.median(theirs) if theirs else None,
        "ratio": statistics.median(ours) / statistics.median(theirs) if theirs else None,
        "spread": spread,
        **further,
    }
    if theirs:
        ratios = [own / other for own, other in zip(ours, theirs, strict=False)]
        spread["rival_s"] = [min(theirs), max(theirs)]
        spread["ratio"] = [min(ratios), max(ratios)]
    return row
