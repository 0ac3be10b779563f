"""`detect data convert | split`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from detect.cli.options import OnError
from detect.cli.screen import say
from detect.cli.tables import Column, print_table
from detect.data import (
    AnnotatedSet,
    DataFaults,
    DataFormat,
    Written,
    counts_by_split,
    detect_format,
    parse_shares,
    read_annotated,
    stratify,
    with_splits,
    write_annotated,
    write_splits,
)
from detect.errors import DetectError
from detect.progress import showing
from detect.wording import counted


def convert_folder(
    root: Path,
    source_format: DataFormat | None,
    target_format: DataFormat,
    out: Path,
    link: bool,
    on_error: OnError,
    console: Console,
) -> None:
    """Write a data set in another format, and say what that has changed."""
    _refuse_within(root, out)
    annotated = _read(root, source_format, None, on_error, console)
    _say_written(_write(annotated, out, target_format, link, console), annotated, console)


def split_folder(
    root: Path,
    source_format: DataFormat | None,
    out: Path | None,
    shares_text: str,
    seed: int,
    force: bool,
    link: bool,
    on_error: OnError,
    console: Console,
) -> None:
    """Share all images of a set between splits, and print the counts."""
    shares = parse_shares(shares_text)
    if out is not None:
        _refuse_within(root, out)
    source_format = source_format or detect_format(root)
    found = _read(root, source_format, (), on_error, console)
    # by name: the same images give the same splits, in whatever order a format lists them
    images = tuple(sorted(found.images, key=lambda image: image.image_id))
    annotated = replace(found, images=images)
    counts = _class_counts(annotated)
    splits = stratify(counts, shares, seed)
    shared = with_splits(annotated, splits)
    if out is None:
        written = write_splits(shared, force=force)
        lines = [f"Written: {path}" for path in written.files]
        lines += [f"note: {note}" for note in written.notes]
    _print_counts(annotated, counts_by_split(counts, splits, list(shares)), console)
    if out is not None:
        _say_written(_write(shared, out, source_format, link, console), shared, console)
        return
    say(console, *lines)


def _refuse_within(root: Path, out: Path) -> None:
    """Of a set within a set, one would be taken for a part of the other."""
    outer, inner = root.resolve(), out.resolve()
    if outer.is_dir() and (inner == outer or outer in inner.parents):
        raise DetectError(f"--out {out}: expected a folder outside of {root}; name another")


def _read(
    root: Path,
    source_format: DataFormat | None,
    splits: tuple[str, ...] | None,
    on_error: OnError,
    console: Console,
) -> AnnotatedSet:
    """Read the whole set; errors stop, or are printed and left out."""
    with showing(f"Reading {root}", console) as progress:
        annotated = read_annotated(root, splits, data_format=source_format, progress=progress)
    errors = [fault for fault in annotated.faults if fault.severity == "error"]
    if errors and on_error == "stop":
        raise DataFaults(annotated.faults, [root], is_voc=annotated.data_format == "voc")
    say(console, *map(str, annotated.faults))
    if errors:
        say(
            console,
            f"left out as faulty: {counted(annotated.num_skipped_images, 'image')}, "
            f"{counted(annotated.num_skipped_objects, 'object')}",
        )
    return annotated


def _write(
    annotated: AnnotatedSet, out: Path, data_format: DataFormat, link: bool, console: Console
) -> Written:
    with showing(f"Writing {out}", console) as progress:
        return write_annotated(annotated, out, data_format, link=link, progress=progress)


def _say_written(written: Written, annotated: AnnotatedSet, console: Console) -> None:
    names = sorted({split for image in annotated.images for split in image.splits})
    splits = f"splits {', '.join(names)}" if names else "no splits"
    lines = [f"not kept: {loss}" for loss in written.losses]
    lines += [f"note: {note}" for note in written.notes]
    lines.append(
        f"{written.root}: {counted(written.num_images, 'image')}, "
        f"{counted(written.num_objects, 'object')} of "
        f"{counted(len(annotated.class_names), 'class')}, {splits}, as {written.data_format}"
    )
    say(console, *lines)


def _class_counts(annotated: AnnotatedSet) -> np.ndarray:
    """The number of objects of each class in each image, [N, C]."""
    labels = {name: label for label, name in enumerate(annotated.class_names)}
    counts = np.zeros((len(annotated.images), len(labels)), np.int64)
    for row, image in enumerate(annotated.images):
        for item in image.objects:
            counts[row, labels[item.name]] += 1
    return counts


def _print_counts(
    annotated: AnnotatedSet, counts: dict[str, tuple[int, list[int]]], console: Console
) -> None:
    of_classes = zip(*(objects for _, objects in counts.values()), strict=True)
    numbers = [
        ("images", [number for number, _ in counts.values()]),
        *zip(annotated.class_names, of_classes, strict=True),
    ]
    rows = []
    for name, row in numbers:
        total = sum(row)
        cells = [f"{n:,} ({n / total:.1%})" if total else "0" for n in row]
        rows.append([name, *cells, f"{total:,}"])
    columns = [Column("class", "left"), *map(Column, (*counts, "all"))]
    title = f"{annotated.root}: objects by class and split"
    print_table(console, title, columns, rows, sections=[0])
