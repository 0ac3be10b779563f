"""`detect proposals`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console

from detect.cli.options import OnError
from detect.cli.screen import say
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


def run_proposals(
    data: Path,
    out: Path,
    *,
    split: str | None = None,
    method: str = "selective-search",
    settings: Sequence[str] = (),
    boxes: Path | None = None,
    max_boxes: int | None = None,
    num_workers: int | None = None,
    json_file: Path | None = None,
    plot: Path | None = None,
    on_error: OnError = "stop",
    console: Console,
) -> None:
    """Compute proposals or read those of `boxes`, write them, and measure their coverage.

    The arguments are the options of the command; `data` is a data set's folder or a config.

    Raises:
        DetectError: an option, the data or the boxes are at fault.
    """
    # what would fail at the end, before the work begins
    for option, file, suffixes in (("--out", out, (".npz",)), ("--plot", plot, PLOT_SUFFIXES)):
        if file is not None and file.suffix.lower() not in suffixes:
            raise DetectError(
                f"{option}: expected a name that ends with {', '.join(suffixes)}, found {file}"
            )
    if boxes is not None and settings:
        raise DetectError(f"--boxes: a file has no parameters; leave out {' '.join(settings)}")
    dataset = _read_data(data, split, on_error, console)
    computed = None
    if boxes is None:
        source = _build_source(method, settings, dataset)
        workers = num_workers or os.cpu_count() or 1
        computed = _compute(source, dataset, out.with_suffix(".cache"), workers, console)
        proposals = computed.proposals
    else:
        sizes = {meta.image_id: meta.original_size for meta in dataset.metas}
        proposals = read_proposals(boxes, sizes)
        if proposals.settings.get("num_repeated"):
            console.print(
                f"  left out, repeated: {counted(proposals.settings['num_repeated'], 'box')}"
            )
    if max_boxes is not None:
        proposals = proposals.first(max_boxes)
    write_proposals(out, proposals)
    truths = dict(zip(dataset.image_ids, dataset.truths, strict=True))
    coverage = measure_coverage(proposals, truths, dataset.class_names)
    _show(coverage, proposals, computed, console)
    if json_file is not None:
        write_json(json_file, _report(coverage, proposals, computed))
        say(console, f"Report: {json_file}")
    if plot is not None:
        _draw_curve(coverage, plot, f"{proposals.settings['method']}, {data}")
        say(console, f"Curve: {plot}")
    say(console, f"Proposals: {out}")


def _read_data(
    data: Path, split: str | None, on_error: OnError, console: Console
) -> DetectionDataset:
    if data.suffix not in SUFFIXES:
        split = split or "trainval"
        with console.status(f"Checking {data}, {split}"):
            # decoding every image only to see that it can be is left to the method
            dataset = read_dataset(data, split, on_error=on_error, verify_images=on_error == "skip")
        report_skipped(dataset, console)
        return dataset
    config, _ = load_config(data)
    names = {"train": "train_split", "val": "val_split", "test": "test_split"}
    if split is not None and split not in names:
        raise DetectError(f"--split: of a config, expected train, val or test, found '{split}'")
    images = read_split(config, names[split or "train"], console)
    if images.skeleton is not None:
        raise DetectError(
            f"{data}: proposals are found in whole images with boxes; data of kind "
            f"'{config.data.kind}' is another; take a config of kind voc, coco, yolo or shapes"
        )
    return images


def _build_source(
    method: str, settings: Sequence[str], dataset: DetectionDataset
) -> ProposalSource:
    if method == JITTERED_TRUTH:
        options = _check_options(JITTERED_TRUTH, JitteredTruth, settings, "truths")
        truths = zip(dataset.image_ids, dataset.truths, strict=True)
        return JitteredTruth({name: truth.boxes.numpy() for name, truth in truths}, **options)
    if method.startswith(RPN):
        if settings:
            raise DetectError(
                f"--method {method}: expected no parameters, found {' '.join(settings)}"
            )
        return rpn_source(method.removeprefix(RPN))
    if method not in PROPOSALS:
        known = [*PROPOSALS, JITTERED_TRUTH]
        raise DetectError(f"--method: unknown '{method}'; {hint(method, known)}")
    build = PROPOSALS[method]
    source: ProposalSource = build(**_check_options(method, build, settings))
    return source


def _check_options(
    method: str, build: Callable[..., Any], settings: Sequence[str], *without: str
) -> dict[str, Any]:
    """The arguments of a source; unknown ones and such of another type are errors."""
    values, written = {}, {}
    for setting in settings:
        key, equals, written[key] = setting.partition("=")
        try:
            _, values[key] = parse_yaml(written[key])
        except BrokenYAMLError as error:
            raise DetectError(f"{setting}: the value is no YAML; quote it") from error
        if not equals or not key:
            raise DetectError(f"'{setting}': expected KEY=VALUE, such as min_size=10")
    section = options_of(build, *without)
    try:
        checked = section.model_validate(values)
    except ValidationError as error:
        complaints = []
        for fault in error.errors():
            key = str(fault["loc"][0])
            complaint = f"{fault['msg']}, found {written[key]}"
            if fault["type"] == "extra_forbidden":
                complaint = unknown_key(key, section.model_fields)
            complaints.append(f"{key} of {method}: {complaint}")
        raise DetectError("\n".join(dict.fromkeys(complaints))) from error
    return {key: getattr(checked, key) for key in values}


def _compute(
    source: ProposalSource,
    dataset: DetectionDataset,
    cache: Path,
    num_workers: int,
    console: Console,
) -> ComputedProposals:
    images = [
        ImageFile(meta.image_id, meta.path, meta.original_size)
        for meta in dataset.metas
        if meta.path is not None
    ]
    workers = 1 if is_network(source) else num_workers
    with showing_proposals(len(images), cache, console) as advance:
        return compute_proposals(
            images, source, read_image, cache=cache, num_workers=workers, progress=advance
        )


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
