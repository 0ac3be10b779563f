"""The tree of commands. Each command imports what it needs when it runs, so that help is quick."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from detect.cli.data_app import data_app
from detect.cli.options import (
    ConfigFile,
    Device,
    Fuse,
    FuseIoU,
    JSONFile,
    OnErrorOption,
    Overrides,
    PrintConfig,
    Resume,
    RunFolder,
    RunOrCheckpoint,
    SaveDetections,
    SplitOfData,
    With,
    examples,
    output,
)
from detect.configs import find_config
from detect.version import __version__

app = typer.Typer(
    help="Object detection: train, evaluate and run detectors on data in VOC, COCO or YOLO format.",
    epilog="Begin with: detect demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    out: RunFolder = None,
    resume: Resume = False,
    device: Device = "auto",
    print_config: PrintConfig = False,
) -> None:
    """Train a detector from a config, evaluate it, and write a run folder."""
    from detect.cli.train import run_training

    run_training(
        find_config(config), overrides or [], out=out, resume=resume, device=device,
        print_config=print_config, console=output,
    )  # fmt: skip


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
    out: RunFolder = None,
    resume: Resume = False,
    device: Device = "auto",
    print_config: PrintConfig = False,
) -> None:
    """Train a backbone as a classifier; any detector can start from its weights."""
    from detect.cli.train import run_training

    run_training(
        find_config(config), overrides or [], classifier=True, out=out, resume=resume,
        device=device, print_config=print_config, console=output,
    )  # fmt: skip


@app.command(
    epilog=examples(
        "detect evaluate runs/mine",
        "detect evaluate runs/mine --data VOCdevkit/VOC2007 --split test --json result.json",
        "detect evaluate runs/mine --iou 0.5:0.95:0.05 --metric both",
        "detect evaluate --detections results/ --data VOCdevkit/VOC2007 --split test",
        "detect evaluate --detections found.csv --data bccd --split test --iou 0.5 --iou 0.75",
        "detect evaluate --detections results.json --data instances_val2017.json",
        "detect evaluate --detections found.json --data bccd --split test --save found.coco.json",
        "detect evaluate runs/a runs/b --significance",
        "detect evaluate a.json b.json --data instances_val2017.json --fuse",
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
            help="Minimum IoU of a true positive by VOC's protocol; several, or a range.",
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
    fuse: Fuse = False,
    fuse_iou: FuseIoU = 0.55,
    json: JSONFile = None,
    save: SaveDetections = None,
    on_error: OnErrorOption = "stop",
    device: Device = "auto",
) -> None:
    """Evaluate models, or anyone's detections, by the PASCAL VOC protocol, by COCO's, or by both.

    Several are compared side by side.
    """
    given = arguments or []
    overrides = [text for text in given if "=" in text and not Path(text).exists()]
    from detect.cli.evaluate import run_evaluation
    from detect.training import joined_processes

    with joined_processes():
        run_evaluation(
            [Path(text) for text in given if text not in overrides], overrides,
            detections=detections or [], data=data, split=split, metric=metric, iou=iou or [],
            significance=significance, resamplings=resamplings, seed=seed,
            fuse_iou=fuse_iou if fuse else None,
            json_file=json, save=save, on_error=on_error, device=device, console=output,
        )  # fmt: skip


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
    split: SplitOfData = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the results go.", show_default="<run>/analysis, or analysis"
        ),
    ] = None,
    iou: Annotated[float, typer.Option(help="Minimum IoU of a true positive.")] = 0.5,
    score: Annotated[
        float | None,
        typer.Option(
            help="Minimum score in the confusion matrix.", show_default="that of the best F1"
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
    on_error: OnErrorOption = "stop",
) -> None:
    """Diagnose detection errors: their kinds and costs, confusion, calibration, and more.

    TIDE, Hoiem's groups, score thresholds, confusion matrix, AP by size, recall, calibration:
    docs/analysis.md.
    """
    if (run is None) == (detections is None):
        raise typer.BadParameter("give either a run, or --detections")
    if run is not None and (data is not None or split is not None):
        raise typer.BadParameter("--data and --split go with --detections")
    if detections is not None and data is None:
        raise typer.BadParameter("--detections needs --data ROOT, with --split NAME, or a file")
    from detect.cli.analyze import run_analysis

    run_analysis(
        run, detections=detections, data=data, split=split, out=out, iou_threshold=iou,
        score_threshold=score, similar=similar or [], on_error=on_error, console=output,
    )  # fmt: skip


@app.command(
    epilog=examples(
        "detect infer runs/mine photos/ 'more/*.png' --out found --score 0.5",
        "detect infer runs/a photos/ --with runs/b --out fused",
        "detect infer runs/mine photos/ --out found --save pictures,json,csv,coco,voc,yolo,crops",
    )
)
def infer(
    model: RunOrCheckpoint,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Images, folders of images, or globs.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")],
    score: Annotated[float, typer.Option(help="Minimum score of a detection to keep.")] = 0.3,
    save: Annotated[
        str, typer.Option(help="Any of pictures, json, csv, coco, voc, yolo, crops, with commas.")
    ] = "pictures",
    others: With = None,
    fuse_iou: FuseIoU = 0.55,
    device: Device = "auto",
) -> None:
    """Find objects in images; exits with 1 if an image could not be read."""
    from detect.cli.infer import run_inference
    from detect.training import joined_processes

    with joined_processes():
        models = [model, *(others or [])]
        unreadable = run_inference(models, source, out, score, save, fuse_iou, device, output)
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
    """Draw a data set, train a small YOLO on it, evaluate it, and show what it finds (minutes)."""
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
        Path, typer.Option(metavar="DIR", help="Where the table, the picture and new runs go.")
    ] = Path("runs/compare"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT",
            help="Folder in VOC, COCO or YOLO layout.",
            show_default="the test split of the runs",
        ),
    ] = None,
    split: SplitOfData = None,
    images: Annotated[int, typer.Option(min=1, help="How many are timed.")] = 40,
    device: Device = "auto",
) -> None:
    """Compare detectors side by side: mAP, time of each stage, size, caches."""
    from detect.cli.compare import run_comparison

    run_comparison(
        runs, out, data=data, split=split, num_images=images, device=device, console=output
    )


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
    on_error: OnErrorOption = "stop",
) -> None:
    """Find boxes that may hold an object, and measure how well they cover the true ones."""
    from detect.cli.proposals import run_proposals

    shortcuts = {"mode": mode, "seed": seed}
    given = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    run_proposals(
        Path(data) if Path(data).is_dir() else find_config(data), out, split=split, method=method,
        settings=[*given, *(settings or [])], boxes=boxes, max_boxes=max_boxes,
        num_workers=workers, json_file=json, plot=plot, on_error=on_error, console=output,
    )  # fmt: skip


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

    run_ablation(
        find_config(config), overrides or [], out, json_file=json, device=device, console=output
    )


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
    """List the networks that detectors can be built on, or the layers of one of them."""
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
    model: RunOrCheckpoint,
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
            help="evaluate, nms or iou: the evaluators, suppression or IoU, beside those of other "
            "libraries; or all.",
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
