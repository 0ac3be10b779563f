"""`detect proposals`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from rich.console import Console

from detect.cli.tables import Column, print_table
from detect.config import load_config, options_of, unknown_key
from detect.configs import SUFFIXES
from detect.data import DetectionDataset, read_dataset, read_image
from detect.errors import DetectError
from detect.experiment.datasets import read_split, report_skipped
from detect.experiment.model import rpn_source
from detect.experiment.proposing import is_network, showing_proposals
from detect.files import replacing, write_json
from detect.proposals import (
    IOU_THRESHOLDS,
    PROPOSALS,
    ComputedProposals,
    Coverage,
    ImageFile,
    JitteredTruth,
    Proposals,
    ProposalSource,
    compiled_kernels,
    compute_proposals,
    measure_coverage,
    read_proposals,
    write_proposals,
)
from detect.registry import hint
from detect.wording import counted, duration
from detect.yaml_text import BrokenYAMLError, parse_yaml

PLOT_SUFFIXES = (".png", ".pdf", ".svg")
# beside those of PROPOSALS: it needs the truth of the data set
JITTERED_TRUTH = "jittered-truth"
RPN = "rpn:"


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        data: the folder of a data set, or a config whose data it is.
        out: the .npz to write.
        split: of the folder, or train, val or test of the config; None is trainval, or train.
        method: the name of a source.
        settings: its parameters as KEY=VALUE.
        boxes: a file of boxes to take instead of computing any.
        max_boxes: of an image; None keeps all.
        num_workers: None takes as many as there are cores.
        json_file: where the report goes as well.
        plot: where the curve goes as an image.
        on_error: what faulty objects and images of a folder do; a config says so itself.
    """

    data: Path
    out: Path
    split: str | None = None
    method: str = "selective-search"
    settings: Sequence[str] = field(default_factory=list)
    boxes: Path | None = None
    max_boxes: int | None = None
    num_workers: int | None = None
    json_file: Path | None = None
    plot: Path | None = None
    on_error: Literal["stop", "skip"] = "stop"


def run_proposals(request: Request, console: Console) -> None:
    """Compute or read proposals, write them, judge them by the truth and report."""
    _check_names(request)
    dataset = _read_data(request, console)
    computed = None
    if request.boxes is None:
        computed = _compute(request, dataset, console)
        proposals = computed.proposals
    else:
        sizes = {meta.image_id: meta.original_size for meta in dataset.metas}
        proposals = read_proposals(request.boxes, sizes)
        if proposals.settings.get("num_repeated"):
            console.print(
                f"  left out, repeated: {counted(proposals.settings['num_repeated'], 'box')}"
            )
    if request.max_boxes is not None:
        proposals = proposals.first(request.max_boxes)
    write_proposals(request.out, proposals)
    truths = dict(zip(dataset.image_ids, dataset.truths, strict=True))
    coverage = measure_coverage(proposals, truths, dataset.class_names)
    _show(coverage, proposals, computed, console)
    if request.json_file is not None:
        write_json(request.json_file, _report(coverage, proposals, computed))
        console.print(f"Report: {request.json_file}", highlight=False)
    if request.plot is not None:
        _draw_curve(coverage, request.plot, f"{proposals.settings['method']}, {request.data}")
        console.print(f"Curve: {request.plot}", highlight=False)
    console.print(f"Proposals: {request.out}", highlight=False)


def _check_names(request: Request) -> None:
    """Find what would fail at the end before the work begins."""
    if request.out.suffix != ".npz":
        raise DetectError(
            f"--out {request.out}: expected a name that ends with .npz; name it otherwise"
        )
    if request.plot is not None and request.plot.suffix.lower() not in PLOT_SUFFIXES:
        raise DetectError(
            f"--plot {request.plot}: expected a name that ends with {', '.join(PLOT_SUFFIXES)}; "
            "name it otherwise"
        )
    if request.boxes is not None and request.settings:
        raise DetectError(
            f"--boxes: a file has no parameters; leave out {' '.join(request.settings)}"
        )


# --- data ----------------------------------------------------------------------------------------


def _read_data(request: Request, console: Console) -> DetectionDataset:
    if request.data.suffix not in SUFFIXES:
        split = request.split or "trainval"
        with console.status(f"Checking {request.data}, {split}"):
            # decoding every image only to see that it can be is left to the method
            dataset = read_dataset(
                request.data,
                split,
                on_error=request.on_error,
                verify_images=request.on_error == "skip",
            )
        report_skipped(dataset, console)
        return dataset
    config, _ = load_config(request.data)
    names = {"train": "train_split", "val": "val_split", "test": "test_split"}
    if request.split is not None and request.split not in names:
        raise DetectError(
            f"--split: of a config, expected train, val or test, found {request.split!r}"
        )
    images = read_split(config, names[request.split or "train"], console)
    if images.skeleton is not None:
        raise DetectError(
            f"{request.data}: proposals are found in whole images with boxes; data of kind "
            f"{config.data.kind!r} is another; take a config of kind voc, coco, yolo or shapes"
        )
    return images


# --- the source ----------------------------------------------------------------------------------


def _build_source(request: Request, dataset: DetectionDataset) -> ProposalSource:
    values = _parse_settings(request.settings)
    if request.method == JITTERED_TRUTH:
        options = _check_options(JITTERED_TRUTH, JitteredTruth, values, "truths")
        truths = zip(dataset.image_ids, dataset.truths, strict=True)
        return JitteredTruth({name: truth.boxes.numpy() for name, truth in truths}, **options)
    if request.method.startswith(RPN):
        if values:
            raise DetectError(f"--method {request.method}: expected no parameters, found {values}")
        return rpn_source(request.method.removeprefix(RPN))
    if request.method not in PROPOSALS:
        known = [*PROPOSALS, JITTERED_TRUTH]
        raise DetectError(f"--method: unknown {request.method!r}; {hint(request.method, known)}")
    build = PROPOSALS[request.method]
    source: ProposalSource = build(**_check_options(request.method, build, values))
    return source


def _parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            _, values[key] = parse_yaml(text)
        except BrokenYAMLError as error:
            raise DetectError(f"{setting}: the value is no YAML; quote it") from error
        if not equals or not key:
            raise DetectError(f"{setting!r}: expected KEY=VALUE, such as min_size=10")
    return values


def _check_options(
    method: str, build: Callable[..., Any], values: Mapping[str, Any], *without: str
) -> dict[str, Any]:
    """The arguments of a source; unknown ones and such of another type are errors."""
    section = options_of(build, *without)
    try:
        checked = section.model_validate(dict(values))
    except ValidationError as error:
        complaints = []
        for fault in error.errors():
            key = str(fault["loc"][0])
            complaint = f"{fault['msg']}, found {fault['input']!r}"
            if fault["type"] == "extra_forbidden":
                complaint = unknown_key(key, section.model_fields)
            complaints.append(f"{key} of {method}: {complaint}")
        raise DetectError("\n".join(dict.fromkeys(complaints))) from error
    return {key: getattr(checked, key) for key in values}


# --- the work ------------------------------------------------------------------------------------


def _compute(request: Request, dataset: DetectionDataset, console: Console) -> ComputedProposals:
    source = _build_source(request, dataset)
    images = [
        ImageFile(meta.image_id, meta.path, meta.original_size)
        for meta in dataset.metas
        if meta.path is not None
    ]
    cache = request.out.with_suffix(".cache")
    num_workers = 1 if is_network(source) else request.num_workers or os.cpu_count() or 1
    with showing_proposals(len(images), cache, console) as advance:
        return compute_proposals(
            images, source, read_image, cache=cache, num_workers=num_workers, progress=advance
        )


# --- the report ----------------------------------------------------------------------------------


def _show(
    coverage: Coverage, proposals: Proposals, computed: ComputedProposals | None, console: Console
) -> None:
    title = (
        f"{proposals.settings['method']}: "
        f"{counted(coverage.num_images, 'image')}, {counted(len(coverage.labels), 'object')}; "
        f"{counted(coverage.num_difficult, 'difficult one')} not counted"
    )
    recalls = [coverage.recall(threshold) for threshold in IOU_THRESHOLDS]
    headings = [f"recall,\nIoU {threshold}" for threshold in IOU_THRESHOLDS]
    columns = [Column(heading) for heading in ("at most", "boxes\nper image", *headings, "MABO")]
    mabo = coverage.mean_average_best_overlap()
    rows = []
    for row, limit in enumerate(coverage.limits):
        figures = (*(recall[row] for recall in recalls), mabo[row])
        shown = ("–" if np.isnan(figure) else f"{figure:.3f}" for figure in figures)
        rows.append([f"{limit:,}", f"{coverage.mean_counts[row]:,.1f}", *shown])
    print_table(console, title, columns, rows)
    if computed is not None:
        line = (
            f"{np.median(computed.seconds):.2f} s an image (median), "
            f"{duration(computed.seconds.sum())} in all; "
            f"{computed.num_reused} of {counted(len(proposals), 'image')} from the cache"
        )
        if proposals.settings["method"] == "selective-search":
            kernels = "numba" if compiled_kernels() is not None else "plain numpy"
            line += f"; inner loops: {kernels}"
        console.print(line, highlight=False)


def _report(
    coverage: Coverage, proposals: Proposals, computed: ComputedProposals | None
) -> dict[str, Any]:
    return coverage.as_dict() | {
        "median_seconds": None if computed is None else float(np.median(computed.seconds)),
        "settings": dict(proposals.settings),
        "fingerprint": proposals.fingerprint,
    }


def _draw_curve(coverage: Coverage, out: Path, title: str) -> None:
    """Recall and MABO over the number of proposals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for threshold, color in zip(IOU_THRESHOLDS, ("tab:blue", "tab:orange"), strict=True):
        recall = coverage.recall(threshold)
        axes.plot(coverage.mean_counts, recall, ".-", color=color, label=f"recall, IoU {threshold}")
    mabo = coverage.mean_average_best_overlap()
    axes.plot(coverage.mean_counts, mabo, ".--", color="black", label="MABO")
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="boxes an image", title=title)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right")
    with replacing(out) as temporary:
        figure.savefig(temporary, format=out.suffix.lower()[1:], dpi=120)
