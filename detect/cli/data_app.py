"""The commands `detect data …`. Each imports what it needs when it runs, as in `app`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from detect.cli.options import (
    ConfigFile,
    JSONFile,
    OnErrorOption,
    Overrides,
    Root,
    SourceFormat,
    examples,
    output,
)
from detect.configs import find_config

data_app = typer.Typer(
    help="Inspect, check, convert and split data sets, or draw one.",
    epilog=examples(
        "detect data check VOCdevkit/VOC2007",
        "detect data convert VOCdevkit/VOC2007 --to coco --out data/voc07-coco",
        "detect data shapes data/shapes",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@data_app.command(
    epilog=examples(
        "detect data check VOCdevkit/VOC2007",
        "detect data check bccd --html faults.html",
        "detect data check bccd --split trainval --classes RBC,WBC,Platelets --json faults.json",
        "detect data check bccd --strict",
    )
)
def check(
    root: Root,
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Splits to check.", show_default="all")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="voc, auto, or the only names allowed, with commas.")
    ] = "auto",
    data_format: SourceFormat = None,
    json: JSONFile = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with pictures of the faults."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings too make the exit status 1.")
    ] = False,
    show_all: Annotated[
        bool, typer.Option("--all", help="Print every fault, not only the first of each rule.")
    ] = False,
) -> None:
    """Find what is wrong with a data set, and what is suspicious.

    Faulty boxes and files, the same image twice, splits that overlap, and so on.
    docs/data_check.md lists the rules.

    Exit status: 0 without errors (with --strict, without warnings too), 1 with them,
    2 if the set cannot be checked.
    """
    from detect.cli.check import check_data
    from detect.cli.data import as_classes

    report = check_data(root, split, as_classes(classes), data_format, json, html, show_all, output)
    if report.count("error") or (strict and report.count("warning")):
        raise typer.Exit(1)


@data_app.command(
    epilog=examples(
        "detect data stats VOCdevkit/VOC2007 --split trainval",
        "detect data stats data/coco --split val2017",
    )
)
def stats(
    root: Root,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Split to count.", show_default="trainval, else train, else any"
        ),
    ] = None,
    classes: Annotated[str, typer.Option(help="voc, auto, or names with commas.")] = "auto",
    json: JSONFile = None,
) -> None:
    """Count images, objects, classes and sizes of a split."""
    from detect.cli.data import print_statistics

    print_statistics(root, split, classes, json, output)


@data_app.command(
    epilog=examples(
        "detect data convert VOCdevkit/VOC2007 --to coco --out data/voc07-coco",
        "detect data convert data/coco --to yolo --out data/coco-yolo --link --on-error skip",
        "detect data convert exported/data.yaml --from yolo --to voc --out data/mine",
    )
)
def convert(
    root: Root,
    to: Annotated[
        Literal["voc", "coco", "yolo"], typer.Option(help="Format to write.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that is empty or new.", show_default=False)
    ],
    source_format: SourceFormat = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link to the images instead of copying them.")
    ] = False,
    on_error: OnErrorOption = "stop",
) -> None:
    """Write a data set in another format; boxes, splits, ids and flags are kept."""
    from detect.cli.data_sets import convert_folder

    convert_folder(root, source_format, to, out, link, on_error, output)


@data_app.command(
    epilog=examples(
        "detect data split bccd --in-place --shares train=0.8,val=0.1,test=0.1 --force",
        "detect data split exported --out data/mine --shares train=0.9,val=0.1 --seed 1 --link",
    )
)
def split(
    root: Root,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a new data set there.", show_default=False),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write the splits into ROOT.")
    ] = False,
    shares: Annotated[
        str, typer.Option(metavar="NAME=SHARE,...", help="They add up to 1.")
    ] = "train=0.8,val=0.1,test=0.1",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same splits.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="With --in-place, replace splits of these names.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="With --out, link to the images.")] = False,
    source_format: SourceFormat = None,
    on_error: OnErrorOption = "stop",
) -> None:
    """Divide all images into splits, each class in proportion (stratified)."""
    if (out is None) != in_place:
        raise typer.BadParameter("give either --out DIR or --in-place")
    if (force and out is not None) or (link and in_place):
        raise typer.BadParameter("--force goes with --in-place, --link with --out")
    from detect.cli.data_sets import split_folder

    split_folder(root, source_format, out, shares, seed, force, link, on_error, output)


@data_app.command(
    epilog=examples(
        "detect data show yolo_tiny_shapes --out sheet.png",
        "detect data show yolo_tiny_shapes data.augmentation.scale=0.5 --count 30",
    )
)
def show(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="PNG or JPEG.")] = Path("sheet.png"),
    count: Annotated[int, typer.Option(min=1, help="Images on the sheet.")] = 16,
) -> None:
    """Write a contact sheet of augmented training images with their boxes."""
    from detect.cli.data import show_training_images

    show_training_images(find_config(config), overrides or [], out, count, output)


@data_app.command(epilog=examples("detect data shapes data/shapes --images 1200 --seed 0"))
def shapes(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    images: Annotated[int, typer.Option(help="Images in all three splits.")] = 1200,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 128,
) -> None:
    """Draw the built-in data set in VOC layout."""
    from detect.cli.data import draw_set
    from detect.data import draw_shapes

    draw_set(draw_shapes, folder, images, seed, size, output)


@data_app.command(epilog=examples("detect data figures data/figures --images 3000 --size 96"))
def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    images: Annotated[int, typer.Option(help="Images in all three splits.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 96,
) -> None:
    """Draw the built-in stick figures with their joints, in COCO's keypoint format."""
    from detect.cli.data import draw_set
    from detect.data import draw_figures

    draw_set(draw_figures, folder, images, seed, size, output)
