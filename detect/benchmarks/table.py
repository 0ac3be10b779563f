"""The benchmarks by name, and their rows as a table."""

from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from detect.benchmarks.evaluate import bench_evaluate, bench_evaluate_small
from detect.benchmarks.ops import bench_iou, bench_nms
from detect.benchmarks.timing import Row
from detect.errors import DetectError
from detect.registry import hint

# From the name of a device, the number of repeats and whether the task is to be tiny.
Benchmark = Callable[[str, int, bool], list[Row]]


def _evaluate(device: str, repeats: int, small: bool) -> list[Row]:
    if small:
        return bench_evaluate_small(device, repeats)
    return bench_evaluate(device=device, repeats=repeats)


# What `detect bench` and `tools/bench.py` offer: a benchmark more is a line more here.
BENCHMARKS: dict[str, Benchmark] = {"iou": bench_iou, "nms": bench_nms, "evaluate": _evaluate}
ALL = "all"


def named_benchmarks(name: str) -> Mapping[str, Benchmark]:
    """The benchmark of that name, or all of them for `all`.

    Raises:
        DetectError: there is none of that name.
    """
    if name == ALL:
        return BENCHMARKS
    if name not in BENCHMARKS:
        raise DetectError(f"there is no benchmark {name!r}; {hint(name, [*BENCHMARKS, ALL])}")
    return {name: BENCHMARKS[name]}


def benchmark_table(title: str, rows: Sequence[Row]) -> Table:
    """A line for each contest: medians, the spread of the ratio and peak memory."""
    table = Table(
        title=title,
        box=box.SIMPLE,
        pad_edge=False,
        title_justify="left",
        caption=_memory_in_words(rows),
        caption_justify="left",
    )
    table.add_column("task", overflow="fold", min_width=16)
    table.add_column("beside", overflow="fold", min_width=11)
    for header in ("ours\ns", "theirs\ns", "theirs /\nours"):
        table.add_column(header, justify="right", no_wrap=True)
    previous = None
    for row in rows:
        task = row["name"], str(row["sizes"])
        medians = (row["ours_median_s"], row["rival_median_s"])
        table.add_row(
            Text("" if task == previous else "\n".join(task)),
            Text(row["rival"] or "—"),
            *("—" if value is None else f"{value:.3g}" for value in medians),
            _factor(row),
        )
        previous = task
    return table


def _memory_in_words(rows: Sequence[Row]) -> str | None:
    peaks: dict[str, float] = {}
    for row in rows:
        if "ours_peak_mib" in row:
            measured = (row["ours_peak_mib"], row["rival_peak_mib"])
            peaks |= dict(zip(row["contenders"], measured, strict=True))
    if not peaks:
        return None
    listed = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items())
    return f"Peak memory beyond the input: {listed}."


def _factor(row: Row) -> str:
    if not row["ratio"]:
        return "—"
    low, high = sorted(1 / ratio for ratio in row["spread"]["ratio"])
    return f"{1 / row['ratio']:.2f} ({low:.2f}…{high:.2f})"
