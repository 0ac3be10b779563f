"""How fast parts of the toolkit are, beside other libraries that do the same. Floor 5.

A benchmark asserts first that both give the same result, then times them in turn in one process.
"""

from detect.benchmarks.evaluate import bench_evaluate
from detect.benchmarks.ops import bench_iou, bench_nms
from detect.benchmarks.rivals import missing_rivals
from detect.benchmarks.table import BENCHMARKS, Benchmark, benchmark_table, named_benchmarks
from detect.benchmarks.timing import Row
