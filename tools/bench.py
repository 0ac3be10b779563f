"""Measure how fast parts of the toolkit are, beside something else.

python tools/bench.py sliding-window --backbone vgg16 --size 480 640
python tools/bench.py padding RUN
python tools/bench.py svm --classes 20 --examples 100000 --features 4096
python tools/bench.py parts RUN
python tools/bench.py faster-rcnn faster_rcnn_mobilenet_v2_bccd --seeds 0 1 2
python tools/bench.py selective-search DATA --split test --opencv PYTHON_WITH_OPENCV_CONTRIB
python tools/bench.py evaluate --json evaluate.json     the same as `detect bench evaluate`
"""

import argparse
import inspect
import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_table import print_engine_table
from rich.console import Console
from torchvision_faster_rcnn import TorchvisionFasterRCNN

from detect.backbones import create_backbone
from detect.benchmarks import BENCHMARKS
from detect.cli.bench import run_benchmarks
from detect.cli.compare import time_parts as time_detection_parts
from detect.config import Config, resolve
from detect.data import (
    DetectionDataset,
    EvaluationBatches,
    fit_to_input,
    read_dataset,
    read_image,
)
from detect.detectors import SlidingWindow, predict
from detect.errors import DetectError
from detect.evaluation import VOCEvaluator, read_detections_json
from detect.experiment.datasets import read_split
from detect.experiment.model import build_detector, load
from detect.experiment.run import choose_device, describe_device
from detect.experiment.training import train
from detect.ops.svm import LinearSVMs, SVMSolver, fit_linear_svms
from detect.ops.svm_problem import HingeLoss
from detect.proposals import Proposals, SelectiveSearch, compiled_kernels, measure_coverage
from detect.settings import read_settings
from detect.structures import Batch

# Runs in an environment of its own, since a second OpenCV would take the place of ours: reads a
# path a line, answers with a line of JSON. Both sides have one thread.
OPENCV_SEARCH = """
import json, sys, time
import cv2
cv2.setNumThreads(1)
search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
for line in sys.stdin:
    image = cv2.imread(line.strip())
    start, start_cpu = time.perf_counter(), time.process_time()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    x, y, w, h = search.process().T
    times = time.perf_counter() - start, time.process_time() - start_cpu
    boxes = list(zip(x.tolist(), y.tolist(), (x + w).tolist(), (y + h).tolist()))
    print(json.dumps({"version": cv2.__version__, "times": times, "boxes": boxes}), flush=True)
"""

# The name of torchvision's Faster R-CNN among the detectors.
RIVAL = "torchvision_faster_rcnn"

# As the release of R-CNN trains its SVMs: the cost of positives doubled, the bias 10 w₀.
POSITIVE_WEIGHT = 2.0
BIAS_SCALE = 10.0


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    sliding = benchmarks.add_parser(
        "sliding-window", help="all windows of an image in one pass, and cut out one by one"
    )
    sliding.add_argument("--backbone", default="vgg16")
    sliding.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    sliding.add_argument("--repeats", type=int, default=3)
    sliding.add_argument("--device", default="auto")
    search = benchmarks.add_parser(
        "selective-search", help="the mode fast, and that of OpenCV contrib, image by image"
    )
    search.add_argument("data", type=Path, help="VOC folder")
    search.add_argument("--split", default="test")
    search.add_argument("--images", type=int, help="evenly chosen; all by default")
    search.add_argument("--max-boxes", type=int, default=2000)
    search.add_argument(
        "--opencv", type=Path, help="Python of an environment with opencv-contrib-python-headless"
    )
    padding = benchmarks.add_parser(
        "padding", help="what the padding of a trunk changes: a sliding window's dense pass, crops"
    )
    padding.add_argument("run", type=Path, help="of a sliding_window")
    padding.add_argument("--images", type=int, default=40, help="of the test split")
    padding.add_argument("--device", default="auto")
    machines = benchmarks.add_parser(
        "svm", help="linear SVMs of all classes at once, and scikit-learn's LinearSVC one by one"
    )
    machines.add_argument("--classes", type=int, default=20)
    machines.add_argument("--examples", type=int, default=20_000)
    machines.add_argument("--features", type=int, default=1024)
    machines.add_argument("--cost", type=float, default=0.001)
    machines.add_argument("--loss", choices=("hinge", "squared_hinge"), default="hinge")
    machines.add_argument("--fits", type=int, help="of LinearSVC, in place of all classes")
    machines.add_argument(
        "--solver", nargs="+", choices=("auto", "dual", "newton"), default=["auto"], help="of ours"
    )
    machines.add_argument("--tolerance", type=float, default=1e-4, help="of ours")
    machines.add_argument("--half", action="store_true", help="give ours float16 features")
    machines.add_argument("--device", default="auto")
    regions = benchmarks.add_parser(
        "parts", help="seconds of each phase of a run, and of each part of a detection"
    )
    regions.add_argument("run", type=Path)
    regions.add_argument("--images", type=int, default=20, help="of the test split")
    regions.add_argument("--device", default="auto")
    rival = benchmarks.add_parser(
        "faster-rcnn", help="ours and torchvision's on one backbone: COCO AP by seeds, and times"
    )
    rival.add_argument("config", type=Path, help="of a faster_rcnn")
    rival.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="over its settings")
    rival.add_argument("--out", type=Path, default=Path("runs/faster-rcnn"), help="of the runs")
    rival.add_argument("--seeds", type=int, nargs="*", default=[], help="none: times alone")
    rival.add_argument("--repeats", type=int, default=10, help="of a step and of a detection")
    rival.add_argument("--device", default="auto")
    engine = benchmarks.add_parser(
        "engine", help="a training with every key of speed and memory off, and each one on"
    )
    engine.add_argument("config", type=Path)
    engine.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="over its settings")
    engine.add_argument("--out", type=Path, default=Path("runs/engine"), help="of the runs")
    engine.add_argument("--only", nargs="+", metavar="KEY", help="those that are on, not all")
    for name in BENCHMARKS:
        packaged = benchmarks.add_parser(name, help=f"the same as 'detect bench {name}'")
        packaged.add_argument("--repeats", type=int, default=3)
        packaged.add_argument("--small", action="store_true", help="tiny tasks, to try it out")
        packaged.add_argument("--json", type=Path, metavar="FILE")
        packaged.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.benchmark in BENCHMARKS:
        run_benchmarks(
            arguments.benchmark,
            arguments.device,
            arguments.repeats,
            arguments.small,
            arguments.json,
            Console(),
        )
        return
    if arguments.benchmark == "engine":
        print_engine_table(arguments.config, arguments.overrides, arguments.out, arguments.only)
        return
    if arguments.benchmark == "svm":
        compare_machines(arguments)
    elif arguments.benchmark == "parts":
        time_parts(arguments)
    elif arguments.benchmark == "faster-rcnn":
        compare_with_torchvision(arguments)
    elif arguments.benchmark == "padding":
        compare_padding(arguments)
    elif arguments.benchmark == "selective-search":
        dataset = read_dataset(arguments.data, arguments.split, "voc")
        num_images = min(arguments.images or len(dataset), len(dataset))
        chosen = np.linspace(0, len(dataset) - 1, num_images).astype(int).tolist()
        compare_searches(dataset.subset(chosen), arguments.max_boxes, arguments.opencv)
    else:
        size = tuple(arguments.size)
        compare_windows(arguments.backbone, size, arguments.repeats, arguments.device)


def compare_windows(backbone: str, size: tuple[int, int], repeats: int, device_name: str) -> None:
    """Time the dense pass and the crops over one image at one scale."""
    device = choose_device(device_name)
    torch.manual_seed(0)
    detector = SlidingWindow(
        create_backbone(backbone), 20, scales=(1.0,), attach="head", hidden_features=()
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
        f"{backbone}, an image of {size[0]}×{size[1]}, {num_windows} windows of "
        f"{detector.window} pixels, one scale, {repeats} repeats"
    )
    for name, times in (("dense", dense), ("crops", crops)):
        print(f"  {name}: median {statistics.median(times):.3f} s, {describe_spread(times)}")
    print(f"  ratio of the medians: {statistics.median(crops) / statistics.median(dense):.1f}")


def compare_padding(arguments: argparse.Namespace) -> None:
    """Judge a sliding window by its dense pass and by its crops, on the same images."""
    model = load(arguments.run, arguments.device)
    detector = model.detector
    if not isinstance(detector, SlidingWindow):
        raise DetectError(f"{arguments.run}: expected the run of a sliding_window")
    dataset = read_split(model.config, "test_split", Console(quiet=True), model.class_names)
    num_images = min(arguments.images, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, num_images).astype(int).tolist()
    images = dataset.subset(chosen)
    batches = list(EvaluationBatches(images, detector.input_spec, batch_size=8, num_workers=0))
    probabilities: dict[str, list[torch.Tensor]] = {"dense": [], "crops": []}
    print(f"{num_images} images, scales {list(detector.scales)}")
    for mode, seen in probabilities.items():
        detector.mode = mode
        evaluator = VOCEvaluator(model.class_names)
        truths = iter(images.truths)
        for batch in batches:
            on_device = batch.to(model.device)
            evaluator.update(predict(detector, on_device), [next(truths) for _ in batch.metas])
            with torch.no_grad():
                for predictions in detector.look(on_device.unit_images()):
                    seen.append(predictions.logits.softmax(dim=-1).flatten().cpu())
        print(f"  {mode}: mAP area {evaluator.compute().map_area:.3f}")
    differences = (torch.cat(probabilities["dense"]) - torch.cat(probabilities["crops"])).abs()
    shares = {limit: float((differences > limit).double().mean()) for limit in (0.01, 0.1, 0.5)}
    print(
        f"  difference of the class probabilities: mean {float(differences.mean()):.4f}, "
        f"greatest {float(differences.max()):.3f}; "
        + ", ".join(f"{share:.2%} above {limit}" for limit, share in shares.items())
    )


def time_parts(arguments: argparse.Namespace) -> None:
    """Time proposals, network and suppression image by image."""
    model = load(arguments.run, arguments.device)
    for line in (arguments.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        if values["kind"] == "phase":
            print(f"  {values['phase']}: {values['seconds']:.1f} s")
    dataset = read_split(model.config, "test_split", Console(quiet=True), model.class_names)
    times = time_detection_parts(model, dataset, arguments.images)
    print(f"{describe_device(model.device)}, torch {torch.__version__}")
    print(f"{len(times['network'])} images; seconds an image")
    for name, values in times.items():
        print(f"  {name}: {describe_spread(values)}")


def compare_with_torchvision(arguments: argparse.Namespace) -> None:
    """Train both by each seed, unless they are there; judge them by pycocotools; time both."""
    configs = {name: rival_config(arguments, name) for name in ("faster_rcnn", RIVAL)}
    scores: dict[str, list[tuple[float, ...]]] = {name: [] for name in configs}
    for seed in arguments.seeds:
        for name, config in configs.items():
            folder = arguments.out / f"{name}-{seed}"
            if not (folder / "detections.json").exists():
                console = Console()
                seeded = config.model_copy(update={"seed": seed})
                train(seeded, folder, resume=True, device=arguments.device, console=console)
            dataset = read_split(config, "test_split", Console(quiet=True))
            found = coco_average_precision(folder / "detections.json", dataset)
            scores[name].append(found)
            print(f"  {name}, seed {seed}: AP {found[0]:.3f}, AP50 {found[1]:.3f}, {found[2]:.3f}")
    for name, rows in scores.items():
        for number, measure_name in enumerate(("AP", "AP50", "AP75") if rows else ()):
            values = [row[number] for row in rows]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            print(f"  {name} {measure_name}: mean {statistics.mean(values):.3f}{spread}")
    time_rivals(configs, arguments)


def rival_config(arguments: argparse.Namespace, name: str) -> Config:
    """The config for one of the two; torchvision's takes the keys that it knows."""
    settings = read_settings(arguments.config)
    for override in arguments.overrides:
        settings.override(override)
    if name == RIVAL:
        known = inspect.signature(TorchvisionFasterRCNN).parameters
        own = settings.values["detector"]
        settings.values["detector"] = {key: own[key] for key in own if key in known}
        settings.values["detector"]["name"] = RIVAL
    return resolve(settings, str(arguments.config))


def coco_average_precision(detections: Path, dataset: DetectionDataset) -> tuple[float, ...]:
    """AP over IoU 0.5 to 0.95, at 0.5 and at 0.75, by pycocotools; difficult objects are crowds."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = read_detections_json(detections)
    annotations: list[dict[str, Any]] = []
    rows: list[list[float]] = []
    for number, (truth, own) in enumerate(zip(dataset.truths, found.detections, strict=True)):
        for box, label, difficult in zip(
            truth.boxes.tolist(), truth.labels.tolist(), truth.difficult.tolist(), strict=True
        ):
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(difficult),
                }
            )
        for box, score, label in zip(
            own.boxes.tolist(), own.scores.tolist(), own.labels.tolist(), strict=True
        ):
            rows.append([number, box[0], box[1], box[2] - box[0], box[3] - box[1], score, label])
    with redirect_stdout(None):
        truth_set = COCO()
        truth_set.dataset = {
            "images": [{"id": number} for number in range(len(dataset))],
            "categories": [{"id": number} for number in range(len(dataset.class_names))],
            "annotations": annotations,
        }
        truth_set.createIndex()
        evaluation = COCOeval(truth_set, truth_set.loadRes(np.array(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(float(value) for value in evaluation.stats[:3])


def time_rivals(configs: dict[str, Config], arguments: argparse.Namespace) -> None:
    """Seconds of a training step and of a detection, the two in turn on the same images."""
    device = choose_device(arguments.device)
    detectors, batches = {}, {}
    for name, config in configs.items():
        dataset = read_split(config, "train_split", Console(quiet=True))
        detector = build_detector(config.without_weights(), len(dataset.class_names)).to(device)
        size = config.settings_of("train").batch_size
        samples = [fit_to_input(dataset[row], detector.input_spec) for row in range(size)]
        detectors[name], batches[name] = detector, Batch.from_samples(samples).to(device)
        run = arguments.out / f"{name}-{arguments.seeds[0]}" if arguments.seeds else None
        if run is not None:  # untrained, a network finds as much as it may everywhere
            detector.load_state_dict(load(run, arguments.device).detector.state_dict())

    def step(name: str) -> None:
        detector = detectors[name].train()
        detector.zero_grad(set_to_none=True)
        torch.stack(list(detector.loss(batches[name]).values())).sum().backward()

    print(f"{describe_device(device)}, torch {torch.__version__}")
    for what, run_once in (
        ("training step", step),
        ("detection", lambda name: predict(detectors[name], batches[name])),
    ):
        times: dict[str, list[float]] = {name: [] for name in detectors}
        for _ in range(arguments.repeats + 1):
            for name, values in times.items():
                values += measure(partial(run_once, name), 1, device)
        ours, theirs = (values[1:] for values in times.values())
        ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
        print(
            f"  {what}, {len(batches[RIVAL])} images: ours {statistics.median(ours):.3f} s "
            f"({describe_spread(ours)}), torchvision {statistics.median(theirs):.3f} s "
            f"({describe_spread(theirs)}); ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare_machines(arguments: argparse.Namespace) -> None:
    """Time the batched solvers and LinearSVC on features as a network's last layers give them."""
    from sklearn.svm import LinearSVC

    device = choose_device(arguments.device)
    num_classes, cost, loss = arguments.classes, arguments.cost, arguments.loss
    features, targets = draw_examples(arguments.examples, arguments.features, num_classes)
    print(
        f"{describe_device(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads\n"
        f"{num_classes} classes, {arguments.examples} examples, {arguments.features} features, "
        f"{loss}, C = {cost}"
    )
    founds, own_times = {}, {}
    for solver in arguments.solver:
        founds[solver], own_times[solver] = time_solver(
            arguments, features, targets, device, solver
        )
    times, processor_times = [], []
    ratios: dict[str, list[float]] = {solver: [] for solver in founds}
    agreements: dict[str, list[float]] = {solver: [] for solver in founds}
    for label in range(arguments.fits or num_classes):
        machine = LinearSVC(
            C=cost,
            loss=loss,
            dual=loss == "hinge",
            intercept_scaling=BIAS_SCALE,
            class_weight={1: POSITIVE_WEIGHT, -1: 1.0},
        )
        own = targets[:, label]
        begin, begin_cpu = time.perf_counter(), time.process_time()
        machine.fit(features.numpy(), own.numpy())
        times.append(time.perf_counter() - begin)
        processor_times.append(time.process_time() - begin_cpu)
        theirs = torch.from_numpy(machine.coef_[0]).float(), float(machine.intercept_[0])
        expected, least = judge_machine(features, own, *theirs, cost, loss)
        for solver, found in founds.items():
            ours = found.weight[label].cpu(), float(found.bias[label])
            outputs, objective = judge_machine(features, own, *ours, cost, loss)
            ratios[solver].append(objective / least)
            agreements[solver].append(float(((outputs > 0) == (expected > 0)).double().mean()))
    whole = statistics.mean(times) * num_classes
    print(
        f"  LinearSVC, {len(times)} of {num_classes} classes: mean {statistics.mean(times):.1f} s, "
        f"{describe_spread(times)} (mean {statistics.mean(processor_times):.1f} s of the "
        f"processor); all classes {whole:.1f} s; peak memory {peak_memory():.2f} GiB"
    )
    for solver in founds:
        print(
            f"  {solver}: time of LinearSVC over ours {whole / own_times[solver]:.1f}; objective, "
            f"ours over theirs: {min(ratios[solver]):.6f} to {max(ratios[solver]):.6f}; equal "
            f"predictions: {min(agreements[solver]):.4%} or more"
        )


def time_solver(
    arguments: argparse.Namespace,
    features: torch.Tensor,
    targets: torch.Tensor,
    device: torch.device,
    solver: SVMSolver,
) -> tuple[LinearSVMs, float]:
    """All classes at once, and the seconds that it takes."""
    features = (features.half() if arguments.half else features).to(device)
    targets = targets.to(device)

    def fit(num_examples: int) -> LinearSVMs:
        return fit_linear_svms(
            features[:num_examples],
            targets[:num_examples],
            cost=arguments.cost,
            loss=arguments.loss,
            positive_weight=POSITIVE_WEIGHT,
            bias_scale=BIAS_SCALE,
            tolerance=arguments.tolerance,
            solver=solver,
        )

    fit(100)  # compiles the inner loop
    before = peak_memory()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    found = fit(len(features))
    gap = float((found.gap / found.objective).max())  # waits for the device
    elapsed, processor = time.perf_counter() - begin, time.process_time() - begin_cpu
    print(
        f"  all classes at once, {solver}: {elapsed:.1f} s ({processor:.1f} s of the processor), "
        f"{found.num_iterations} iterations, gap {gap:.1e} at most, peak memory {before:.2f} GiB "
        f"before and {peak_memory():.2f} GiB after"
    )
    return found, elapsed


def judge_machine(
    features: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: float,
    cost: float,
    loss: HingeLoss,
) -> tuple[torch.Tensor, float]:
    """The outputs of one linear SVM, and its objective in float64."""
    outputs = features @ weight + bias
    slack = (1 - targets * outputs).clamp(min=0).double()
    losses = slack.square() if loss == "squared_hinge" else slack
    losses = cost * torch.where(targets > 0, POSITIVE_WEIGHT, 1.0) * losses
    regularization = (weight.double().square().sum() + (bias / BIAS_SCALE) ** 2) / 2
    return outputs, float(regularization + losses.sum())


def draw_examples(
    num_examples: int, dim: int, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`[N, D]` features, none negative, and `[N, C]` targets, of which 2 % are positive."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_examples, dim, generator=generator).relu_()
    outputs = features @ torch.randn(dim, num_classes, generator=generator)
    outputs += outputs.std() * 0.5 * torch.randn(outputs.shape, generator=generator)
    # quantile() itself refuses so many numbers
    least = outputs.sort(dim=0).values[int(0.98 * num_examples)]
    targets = torch.where(outputs > least, 1, -1)
    # the mean norm that R-CNN's features are scaled to
    features *= 20 / features.norm(dim=1).mean()
    return features, targets


def peak_memory() -> float:
    """The most memory that this process had so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare_searches(dataset: DetectionDataset, max_boxes: int, opencv: Path | None) -> None:
    """Time both over the same images in turn, and judge both by the same objects."""
    search = SelectiveSearch("fast")
    search(np.zeros((50, 50, 3), np.uint8), "compiles the kernels")
    ours: list[tuple[float, float]] = []  # (elapsed, of the processor)
    theirs: list[tuple[float, float]] = []
    boxes: dict[str, dict[str, np.ndarray]] = {"detect": {}, "OpenCV": {}}
    process = None
    if opencv is not None:
        process = subprocess.Popen(
            [str(opencv), "-c", OPENCV_SEARCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    for meta in dataset.metas:
        image = read_image(Path(str(meta.path)))
        start, start_cpu = time.perf_counter(), time.process_time()
        boxes["detect"][meta.image_id] = search(image, meta.image_id)[:max_boxes]
        ours.append((time.perf_counter() - start, time.process_time() - start_cpu))
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            print(Path(str(meta.path)).absolute(), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            found = np.array(answer["boxes"], np.float32).reshape(-1, 4)[:max_boxes]
            boxes["OpenCV"][meta.image_id] = found
            theirs.append((answer["times"][0], answer["times"][1]))
    if process is not None:
        process.communicate()
    kernels = "numba" if compiled_kernels() is not None else "plain numpy"
    print(f"{len(dataset)} images, one thread each, inner loops: {kernels}")
    truths = dict(zip(dataset.image_ids, dataset.truths, strict=True))
    for name, times in (("detect", ours), ("OpenCV", theirs)):
        if not times:
            continue
        report = measure_coverage(
            Proposals.of_images(boxes[name], {}), truths, dataset.class_names
        ).as_dict()
        elapsed, processor = ([pair[kind] for pair in times] for kind in (0, 1))
        print(
            f"  {name}: median {statistics.median(elapsed):.3f} s ({describe_spread(elapsed)}), "
            f"of the processor {statistics.median(processor):.3f} s; "
            f"{report['mean_boxes']:.0f} boxes an image, recall {report['recall_0.5']:.3f} at IoU "
            f"0.5, {report['recall_0.7']:.3f} at 0.7, MABO {report['mabo']:.3f}"
        )
    for kind, name in enumerate(("elapsed", "of the processor")):
        ratios = [mine[kind] / other[kind] for mine, other in zip(ours, theirs, strict=False)]
        if ratios:
            print(
                f"  time of detect over that of OpenCV, {name}: median "
                f"{statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
            )


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
