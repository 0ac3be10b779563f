"""`detect data stats | show | shapes | figures`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from detect.cli.screen import say
from detect.cli.tables import Column, print_table
from detect.config import load_config
from detect.data import (
    ClassNames,
    DetectionDataset,
    EpochOrder,
    fit_to_input,
    read_dataset,
    splits_of,
)
from detect.experiment.datasets import augmentation_of, read_split
from detect.experiment.model import build_detector
from detect.files import write_json
from detect.progress import showing
from detect.structures import Sample
from detect.visualization import contact_sheet, draw_truth, save_image
from detect.wording import counted

# Of images, that are told apart; the rest of the sizes are rarer.
NUM_SIZES = 10


def print_statistics(
    root: Path, split: str | None, classes: str, json_file: Path | None, console: Console
) -> None:
    """Print counts and sizes of a split, faulty objects and images left out."""
    split = split or _usual_split(splits_of(root))
    names = as_classes(classes)
    dataset = read_dataset(root, split, classes=names, on_error="skip", verify_images=False)
    statistics = collect_statistics(dataset)
    headings = ("objects", "difficult", "images", "median side")
    columns = [Column("class", "left"), *map(Column, headings)]
    rows = []
    for name, row in statistics["classes"].items():
        side = "–" if row["median_side"] is None else f"{row['median_side']:.0f} px"
        counts = (row["num_objects"], row["num_difficult"], row["num_images"])
        rows.append([name, *(f"{count:,}" for count in counts), side])
    print_table(console, f"{root}, {split}: objects by class", columns, rows)
    say(console, *_in_words(statistics))
    if statistics["num_faults"]:
        faults = counted(statistics["num_faults"], "fault")
        say(console, f"{faults} left out; 'detect data check {root}' lists what is wrong")
    if json_file is not None:
        write_json(json_file, statistics)


def _usual_split(splits: Sequence[str]) -> str:
    """The split that one means without saying."""
    usual = [name for prefix in ("trainval", "train") for name in splits if name.startswith(prefix)]
    return [*usual, *splits, "trainval"][0]


def collect_statistics(dataset: DetectionDataset) -> dict[str, Any]:
    """Plain data: counts, image sizes, object sizes, and the same by class.

    The side of an object is the square root of its area in pixels. Small, medium and large are
    COCO's: below 32², below 96², and above.
    """
    boxes = np.concatenate([truth.boxes.numpy() for truth in dataset.truths])
    labels = np.concatenate([truth.labels.numpy() for truth in dataset.truths])
    difficult = np.concatenate([truth.difficult.numpy() for truth in dataset.truths])
    images = np.repeat(np.arange(len(dataset)), [len(truth) for truth in dataset.truths])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    by_class = {}
    for label, name in enumerate(dataset.class_names):
        of_class = labels == label
        by_class[name] = {
            "num_objects": int((of_class & ~difficult).sum()),
            "num_difficult": int((of_class & difficult).sum()),
            "num_images": len(np.unique(images[of_class])),
            "median_side": float(np.median(sides[of_class])) if of_class.any() else None,
        }
    sizes, counts = np.unique(
        [meta.original_size for meta in dataset.metas], axis=0, return_counts=True
    )
    most_common = counts.argsort(kind="stable")[::-1][:NUM_SIZES]
    return {
        "num_images": len(dataset),
        "num_empty_images": sum(len(truth) == 0 for truth in dataset.truths),
        "num_objects": len(boxes),
        "image_sizes": {
            f"{sizes[row][0]}×{sizes[row][1]}": int(counts[row]) for row in most_common
        },
        "object_sizes": {
            "small": int((sides < 32).sum()),
            "medium": int(((sides >= 32) & (sides < 96)).sum()),
            "large": int((sides >= 96).sum()),
        },
        "classes": by_class,
        "num_faults": len(dataset.faults),
    }


def show_training_images(
    config_file: Path, overrides: Sequence[str], out: Path, count: int, console: Console
) -> None:
    """Write the first images of the first epoch as the detector will see them."""
    config, _ = load_config(config_file, overrides)
    dataset = read_split(config, "train_split", console)
    samples = dataset if config.data.include_difficult else dataset.without_difficult()
    augmentation = augmentation_of(config, dataset)
    spec = build_detector(config.without_weights(), len(dataset.class_names)).input_spec
    order = EpochOrder(len(samples), batch_size=min(count, len(samples)), seed=config.seed)
    shown: list[Sample] = []
    for index, seed in next(iter(order)):
        sample = samples[index]
        sample = sample if augmentation is None else augmentation(sample, seed)
        shown.append(fit_to_input(sample, spec))
    images = [draw_truth(sample.image, sample.truth, dataset.class_names) for sample in shown]
    save_image(out, contact_sheet(images, [sample.meta.image_id for sample in shown]))
    say(console, f"{counted(len(images), 'training image')}: {out}")


def draw_set(
    draw: Callable[..., None], folder: Path, num_images: int, seed: int, size: int, console: Console
) -> None:
    """Draw a built-in set: `draw` is `draw_shapes` or `draw_figures`."""
    with showing(f"Drawing into {folder}", console, total=num_images) as progress:
        draw(folder, num_images, seed, (size, size), progress=progress)
    say(console, f"{counted(num_images, 'image')} of {size}×{size} pixels: {folder}")


def as_classes(text: str) -> ClassNames:
    """`voc`, `auto`, or names with commas, from the command line."""
    names: dict[str, ClassNames] = {"voc": "voc", "auto": "auto"}
    return names.get(text) or [name.strip() for name in text.split(",")]


def _in_words(statistics: Mapping[str, Any]) -> list[str]:
    objects = counted(statistics["num_objects"], "object")
    by_size = ", ".join(f"{count:,} {name}" for name, count in statistics["object_sizes"].items())
    sizes = statistics["image_sizes"]
    most_common = "most common " if len(sizes) == NUM_SIZES else ""
    listed = ", ".join(f"{size} ({counted(count, 'image')})" for size, count in sizes.items())
    return [
        f"{counted(statistics['num_images'], 'image')}, "
        f"{statistics['num_empty_images']:,} without an object; {objects}: {by_size}",
        f"Image sizes, {most_common}height × width: {listed}",
    ]
