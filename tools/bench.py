"""Measure how fast parts of the toolkit are, beside something else in the same process.

python tools/bench.py sliding-window --backbone vgg16 --size 480 640
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from detect.backbones import build_backbone
from detect.detectors import SlidingWindow
from detect.experiment import choose_device, describe_device


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    sliding = benchmarks.add_parser(
        "sliding-window", help="all windows of a picture in one pass, and cut out one by one"
    )
    sliding.add_argument("--backbone", default="vgg16")
    sliding.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    sliding.add_argument("--repeats", type=int, default=3)
    sliding.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    compare_windows(arguments.backbone, tuple(arguments.size), arguments.repeats, arguments.device)


def compare_windows(backbone: str, size: tuple[int, int], repeats: int, device_name: str) -> None:
    """Time the dense pass and the crops over one picture at one scale."""
    device = choose_device(device_name)
    torch.manual_seed(0)
    detector = SlidingWindow(
        build_backbone(backbone), 20, scales=(1.0,), attach="head", hidden_features=()
    )
    detector.eval().to(device)
    images = torch.rand(1, 3, *size, device=device)

    @torch.no_grad()
    def look(mode: str) -> int:
        detector.mode = mode
        (seen,) = detector.look(images)
        return seen.logits.shape[1] * seen.logits.shape[2]

    num_windows = look("dense")  # also builds the convolutions once
    dense = measure(lambda: look("dense"), repeats, device)
    crops = measure(lambda: look("crops"), repeats, device)
    print(f"{describe_device(device)}, torch {torch.__version__}")
    print(
        f"{backbone}, a picture of {size[0]}×{size[1]}, {num_windows} windows of "
        f"{detector.window} pixels, one scale, {repeats} repeats"
    )
    for name, times in (("dense", dense), ("crops", crops)):
        print(f"  {name}: median {statistics.median(times):.3f} s, {describe_spread(times)}")
    print(f"  ratio of the medians: {statistics.median(crops) / statistics.median(dense):.1f}")


def measure(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each repeat, the device's work included."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return times


def describe_spread(times: list[float]) -> str:
    """The least and the greatest."""
    return f"{min(times):.3f} to {max(times):.3f} s"


if __name__ == "__main__":
    main()
