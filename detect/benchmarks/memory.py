"""The memory that a call takes at most, beyond what the process holds already."""

import contextlib
import gc
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

MEBIBYTE = 2**20
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_of(run: Callable[[], object]) -> float:
    """Bytes on the CPU.

    Where the system cannot forget an earlier peak (Linux can), only what goes beyond that is seen;
    measure in a fresh process.
    """
    gc.collect()
    before = _forget_peak()
    run()
    return max(_peak() - before, 0.0)


def _forget_peak() -> float:
    """Make the present size the peak, and return it."""
    with contextlib.suppress(OSError):
        _RESET.write_text("5")
    return _peak()


def _peak() -> float:
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        match = None
    if match is not None:
        return float(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
