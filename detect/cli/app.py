"""The tree of commands. Each command imports what it needs when it runs, so that help is quick."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from detect.configs import find_config
from detect.version import __version__

# of several processes, the first one talks; each tells its own errors
output = Console(quiet=os.environ.get("RANK", "0") != "0")
errors = Console(stderr=True)

app = typer.Typer(
    help="Object detection: train, evaluate and run detectors on PASCAL VOC data.",
    epilog="Begin with: detect demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY.SUB=VALUE]...", help="Settings over those of the file.", show_default=False
    ),
]
ConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="Its file, or a name that 'detect configs' lists.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
JSONFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON as well.")
]
OnError = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-error", help="Faulty objects and images: stop or skip."),
]


def examples(*lines: str) -> str:
    """Lines for the end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {line}" for line in lines)


data_app = typer.Typer(
    help="Look at data sets, check them, convert and split them, draw one.",
    epilog=examples(
        "detect data check VOCdevkit/VOC2007",
        "detect data convert VOCdevkit/VOC2007 --to coco --out data/voc07-coco",
        "detect data shapes data/shapes",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        output.print(f"detect {__version__}", highlight=False)
        raise typer.Exit


@app.command(
    epilog=examples(
        "detect train yolo_tiny_shapes",
        "detect train yolo_mobilenet_v2_bccd data.root=bccd training.epochs=20",
        "detect train yolo_tiny_shapes --out runs/mine --resume",
        "detect train yolo_tiny_shapes --print-config",
    )
)
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder.", show_default="runs/<config>-<time>"),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue the run in --out, or the newest run of this config.")
    ] = False,
    device: Device = "auto",
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print every setting and its origin only."),
    ] = False,
) -> None:
    """Train a detector as a config says, judge it, and leave a run folder."""
    from detect.cli.train import run_training

    run_training(find_config(config), overrides or [], out, resume, device, print_config, output)


@app.command(
    epilog=examples(
        "detect pretrain pretrain_resnet18_shapes",
        "detect pretrain pretrain_alexnet_imagenet data.root=imagenet",
        "detect train yolo_resnet18_shapes backbone.weights=runs/mine/checkpoints/best.pt",
    )
)
def pretrain(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder.", show_default="runs/<config>-<time>"),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue the run in --out, or the newest run of this config.")
    ] = False,
    device: Device = "auto",
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print every setting and its origin only."),
    ] = False,
) -> None:
    """Train a backbone as a classifier; any detector can start from its weights."""
    from detect.cli.pretrain import run_pretraining

    run_pretraining(find_config(config), overrides or [], out, resume, device, print_config, output)


@app.command(
    epilog=examples(
        "detect evaluate runs/mine",
        "detect evaluate runs/mine --data VOCdevkit/VOC2007 --split test --json result.json",
        "detect evaluate runs/mine --iou 0.5:0.95:0.05 --metric both",
        "detect evaluate runs/rcnn detector.box_regression=false",
        "detect evaluate --detections results/ --data VOCdevkit/VOC2007 --split test",
        "detect evaluate --detections found.csv --data bccd --split test --iou 0.5 --iou 0.75",
        "detect evaluate --detections results.json --data instances_val2017.json",
        "detect evaluate --detections found.json --data bccd --split test --save found.coco.json",
        "detect evaluate runs/mine --significance",
        "detect evaluate runs/a runs/b --significance",
        "detect evaluate a.json b.json --data instances_val2017.json --significance",
    )
)
def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN_OR_DETECTIONS]... [KEY.SUB=VALUE]...",
            help="Runs or checkpoints to run and judge, files of detections as --detections takes "
            "them, and settings over those that the runs were trained with.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "--ground-truth",
            metavar="ROOT_OR_FILE",
            help="Folder in VOC, COCO or YOLO layout; for files of detections also a COCO "
            "annotation file, whose images need not be there.",
            show_default="that of the run's config",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Split to judge on.", show_default="the test split"),
    ] = None,
    detections: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE_OR_DIR",
            help="Judge these detections, without a model: our JSON, COCO's results JSON, CSV, or "
            "a folder of VOC's comp4_det_<split>_<class>.txt. May be given several times.",
        ),
    ] = None,
    metric: Annotated[
        Literal["voc", "coco", "both"] | None,
        typer.Option(
            help="VOC's two mAP, COCO's 12 numbers, or both.",
            show_default="both for data in COCO's format, else voc",
        ),
    ] = None,
    iou: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER|BEGIN:END:STEP",
            help="Least IoU of a true positive by VOC's protocol; several, or a range.",
            show_default="that of the config, 0.5",
        ),
    ] = None,
    significance: Annotated[
        bool,
        typer.Option(
            "--significance",
            help="Confidence intervals of mAP over resampled images; of two, also that of their "
            "difference, and its p-value.",
        ),
    ] = False,
    resamplings: Annotated[
        int, typer.Option(min=1, help="Samples of the images that --significance draws.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of these samples.")] = 0,
    json: JSONFile = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE_OR_DIR",
            help="Where the detections go, in the form that the ending says: .json, .csv, "
            ".coco.json for COCO's results, else a folder for comp4 files.",
            show_default="<run>/detections-<split>.json",
        ),
    ] = None,
    on_error: OnError = "stop",
    device: Device = "auto",
) -> None:
    """Judge models, or anyone's detections, by the PASCAL VOC protocol, by COCO's, or by both.

    Several are set side by side.
    """
    given = arguments or []
    overrides = [text for text in given if "=" in text and not Path(text).exists()]
    from detect.cli.evaluate import Request, run_evaluation
    from detect.training import joined_processes

    request = Request(
        [Path(text) for text in given if text not in overrides],
        overrides, detections or [], data, split, metric, iou or [], significance, resamplings,
        seed, json, save, on_error, device,
    )  # fmt: skip
    with joined_processes():
        run_evaluation(request, output)


@app.command(
    epilog=examples(
        "detect analyze runs/mine",
        "detect analyze runs/mine --score 0.3 --out analysis",
        "detect analyze --detections found.json --data VOCdevkit/VOC2007 --split test --out why",
        "detect analyze --detections comp4/ --data bccd --split test --similar RBC,WBC",
    )
)
def analyze(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="Run folder: its detections.json, of its test split.",
            show_default=False,
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE_OR_DIR",
            help="Analyze these instead, in any form that detect evaluate reads.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT_OR_FILE",
            help="Folder in VOC, COCO or YOLO layout of --detections, or a COCO annotation file.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of --data.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the results go.", show_default="<run>/analysis, or analysis"
        ),
    ] = None,
    iou: Annotated[float, typer.Option(help="Least IoU of a true positive.")] = 0.5,
    score: Annotated[
        float | None,
        typer.Option(
            help="Least score in the confusion matrix.", show_default="that of the best F1"
        ),
    ] = None,
    similar: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,NAME...",
            help="Classes that are similar, for Hoiem's groups; may be given again.",
            show_default="VOC's animals, vehicles, furniture",
        ),
    ] = None,
    on_error: OnError = "stop",
) -> None:
    """Tell what is wrong with detections: kinds of errors and their cost, confusion, and more.

    TIDE, Hoiem's groups, score thresholds, confusion matrix, AP by size, recall, calibration:
    docs/analysis.md.
    """
    if (run is None) == (detections is None):
        raise typer.BadParameter("give either a run, or --detections")
    if run is not None and (data is not None or split is not None):
        raise typer.BadParameter("--data and --split go with --detections")
    if detections is not None and data is None:
        raise typer.BadParameter("--detections needs --data ROOT, with --split NAME, or a file")
    from detect.cli.analyze import Request, run_analysis

    request = Request(run, detections, data, split, out, iou, score, similar or [], on_error)
    run_analysis(request, output)


@app.command(
    epilog=examples(
        "detect infer runs/mine photo.jpg --out found",
        "detect infer runs/mine photos/ 'more/*.png' --out found --score 0.5",
        "detect infer runs/mine photos/ --out found --save pictures,json,csv,coco,voc,yolo,crops",
    )
)
def infer(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", show_default=False)],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Images, folders of images, globs.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")],
    score: Annotated[float, typer.Option(help="Least score of what is kept.")] = 0.3,
    save: Annotated[
        str, typer.Option(help="Any of pictures, json, csv, coco, voc, yolo, crops, with commas.")
    ] = "pictures",
    device: Device = "auto",
) -> None:
    """Find objects in images; exits with 1 if an image could not be read."""
    from detect.cli.infer import run_inference
    from detect.training import joined_processes

    with joined_processes():
        unreadable = run_inference(model, source, out, score, save, device, output)
    if unreadable:
        raise typer.Exit(1)


@app.command(epilog=examples("detect demo", "detect demo --out my-demo"))
def demo(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder.", show_default="runs/demo-<time>"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw a data set, train a small YOLO on it, judge it, and show what it finds; minutes."""
    from detect.cli.demo import run_demo

    run_demo(out, device, output)


@app.command(
    epilog=examples(
        "detect compare runs/yolo runs/fast runs/faster",
        "detect compare compare --out runs/compare",
        "detect compare compare training.epochs=2 data.root=data/shapes",
        "detect compare runs/a runs/b --data VOCdevkit/VOC2007 --split test",
    )
)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_CONFIG...",
            help="Run folders or checkpoints; configs or folders of them (files or names), which "
            "are trained first, and KEY.SUB=VALUE over their settings.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where table, image and new runs go.")
    ] = Path("runs/compare"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT",
            help="Folder in VOC, COCO or YOLO layout.",
            show_default="the test split of the runs",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of --data.", show_default=False)
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many are timed.")] = 40,
    device: Device = "auto",
) -> None:
    """Set detectors side by side: mAP, the time of each part of a detection, size, caches."""
    from detect.cli.compare import Request, run_comparison

    run_comparison(Request(runs, out, data, split, images, device), output)


@app.command(
    epilog=examples(
        "detect proposals VOCdevkit/VOC2007 --split trainval --out trainval.npz",
        "detect proposals yolo_tiny_shapes --split test --out test.npz min_size=10",
        "detect proposals bccd --out windows.npz --method dense-windows stride=0.5 --plot a.png",
        "detect proposals VOCdevkit/VOC2007 --out theirs.npz --boxes voc_2007_trainval.mat",
    )
)
def proposals(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Folder in VOC, COCO or YOLO layout, or a config (file or name) whose data it is.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Parameters of the method: docs/proposals.md.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.npz", help="Boxes of all images; FILE.cache keeps single ones."),
    ] = Path("proposals.npz"),
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Split of the folder; train, val or test of a config.",
            show_default="trainval, of a config train",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="selective-search, dense-windows, random-boxes, jittered-truth, or rpn:RUN for "
            "those of a trained Faster R-CNN."
        ),
    ] = "selective-search",
    mode: Annotated[
        str | None,
        typer.Option(
            help="Of selective search: single, fast or quality; short for mode=MODE.",
            show_default="fast",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for seed=SEED.", show_default="0")] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Boxes from elsewhere to check, judge and convert: .npz, or the .mat of the "
            "original release.",
        ),
    ] = None,
    max_boxes: Annotated[
        int | None, typer.Option(min=1, help="Best boxes to keep.", show_default="all")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one a core")
    ] = None,
    json: JSONFile = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the curve over their number.")
    ] = None,
    on_error: OnError = "stop",
) -> None:
    """Find boxes that may hold an object, and tell how well they cover those that do."""
    from detect.cli.proposals import Request, run_proposals

    shortcuts = {"mode": mode, "seed": seed}
    given = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    request = Request(
        Path(data) if Path(data).is_dir() else find_config(data), out, split, method,
        [*given, *(settings or [])], boxes, max_boxes, workers, json, plot, on_error,
    )  # fmt: skip
    run_proposals(request, output)


@app.command(
    epilog=examples(
        "detect ablation rcnn_tiny_shapes --out runs/ablation",
        "detect ablation rcnn_alexnet_voc07 data.root=VOCdevkit/VOC2007 --out table2",
    )
)
def ablation(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of its runs; those there are continued.")
    ] = Path("runs/ablation"),
    json: JSONFile = None,
    device: Device = "auto",
) -> None:
    """Print R-CNN's table 2 for one's own data: layers, fine-tuning, box regression, softmax."""
    from detect.cli.ablation import run_ablation

    run_ablation(find_config(config), overrides or [], out, device, json, output)


@app.command(
    epilog=examples(
        "detect backbones",
        "detect backbones alexnet --size 224",
        "detect backbones 'torchvision/regnet*' --json regnets.json",
        "detect backbones timm/convnext_tiny",
    )
)
def backbones(
    name: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="One name: its layers. Several, or a pattern with *: a row for each.",
            show_default="all of the registry",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the image, with one name.", show_default="as designed"),
    ] = None,
    json: JSONFile = None,
) -> None:
    """List the networks that detectors can grow on, or the layers of one of them."""
    from detect.cli.backbones import list_backbones, show_backbone

    names = name or []
    if len(names) == 1 and "*" not in names[0]:
        show_backbone(names[0], size, json, output)
        return
    if size is not None:
        raise typer.BadParameter("--size goes with one name")
    list_backbones(names, json, output)


@app.command(
    name="export-weights",
    epilog=examples(
        "detect export-weights runs/mine --out mine.safetensors",
        "detect export-weights runs/mine --out trunk.safetensors --backbone",
    ),
)
def export_weights(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="Where they go.")],
    backbone: Annotated[
        bool,
        typer.Option(
            "--backbone", help="Of the backbone alone, for backbone.weights of another config."
        ),
    ] = False,
) -> None:
    """Write the weights of a model as safetensors, which other programs read."""
    from detect.cli.export import export_weights as export

    export(model, out, backbone, output)


@app.command(
    epilog=examples(
        "detect bench evaluate --json evaluate.json",
        "detect bench all --small",
        "detect bench evaluate --device cuda",
    )
)
def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="evaluate: the evaluators beside pycocotools, faster-coco-eval and torchmetrics; "
            "or all.",
        ),
    ] = "all",
    repeats: Annotated[int, typer.Option(min=1, help="Of each contender, in turn.")] = 3,
    small: Annotated[
        bool, typer.Option("--small", help="Tiny tasks, to try it out in seconds.")
    ] = False,
    json: JSONFile = None,
    device: Annotated[str, typer.Option(help="Of ours: auto, cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Time parts of the toolkit beside other libraries, whose results must be the same.

    The other libraries come with the extra "bench"; if one is missing, the message says how.
    """
    from detect.cli.bench import run_benchmarks

    run_benchmarks(name, device, repeats, small, json, output)


@app.command(
    epilog=examples(
        "detect configs",
        "detect configs yolo_tiny_shapes",
        "detect configs yolo_tiny_shapes --copy mine.yaml",
        "detect configs compare --copy my-comparison",
    )
)
def configs(
    name: Annotated[str | None, typer.Argument(help="One to print.", show_default=False)] = None,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR_OR_FILE]", help="Where --copy writes.", show_default="this folder"
        ),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Write a copy to edit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """List the configs that come with the toolkit, print one, or copy one to edit it."""
    from detect.cli.configs import copy_configs, list_configs, print_config

    if (target is not None or force) and not copy:
        raise typer.BadParameter("DIR_OR_FILE and --force go with --copy")
    if name is None:
        if copy:
            raise typer.BadParameter("--copy needs the NAME of a config")
        list_configs(output)
    elif copy:
        copy_configs(name, target or ".", force, output)
    else:
        print_config(name, output)


@app.command(epilog=examples("detect doctor"))
def doctor() -> None:
    """Show versions and devices, and what is wrong with the installation and how to fix it."""
    from detect.cli.doctor import examine

    if not examine(output):
        raise typer.Exit(1)


@data_app.command(
    epilog=examples(
        "detect data check VOCdevkit/VOC2007",
        "detect data check bccd --html faults.html",
        "detect data check bccd --split trainval --classes RBC,WBC,Platelets --json faults.json",
        "detect data check bccd --strict",
    )
)
def check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", show_default=False)],
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Splits to check.", show_default="all"),
    ] = None,
    classes: Annotated[
        str, typer.Option(help="voc, auto, or names with commas that alone are allowed.")
    ] = "auto",
    data_format: Annotated[
        Literal["voc", "coco", "yolo"] | None,
        typer.Option("--from", help="The format, where a folder has several.", show_default="auto"),
    ] = None,
    json: JSONFile = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with images of the faults."),
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
    root: Annotated[Path, typer.Argument(metavar="ROOT", show_default=False)],
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
    root: Annotated[Path, typer.Argument(metavar="ROOT", show_default=False)],
    to: Annotated[
        Literal["voc", "coco", "yolo"], typer.Option(help="Format to write.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that is empty or new.", show_default=False)
    ],
    source_format: Annotated[
        Literal["voc", "coco", "yolo"] | None,
        typer.Option("--from", help="Format of ROOT.", show_default="found out"),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link to the images instead of copying them.")
    ] = False,
    on_error: OnError = "stop",
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
    root: Annotated[Path, typer.Argument(metavar="ROOT", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a set of its own there.", show_default=False),
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
    source_format: Annotated[
        Literal["voc", "coco", "yolo"] | None,
        typer.Option("--from", help="Format of ROOT.", show_default="found out"),
    ] = None,
    on_error: OnError = "stop",
) -> None:
    """Share all images between splits, so that each class is shared in proportion."""
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
    from detect.cli.data import draw_shapes_set

    draw_shapes_set(folder, images, seed, size, output)


@data_app.command(epilog=examples("detect data figures data/figures --images 3000 --size 96"))
def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    images: Annotated[int, typer.Option(help="Images in all three splits.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 96,
) -> None:
    """Draw the built-in stick figures with their joints, in COCO's keypoint format."""
    from detect.cli.data import draw_figures_set

    draw_figures_set(folder, images, seed, size, output)
