"""What commands have in common: their output, and options that mean the same everywhere."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

# of several processes, the first one talks; each tells its own errors
output = Console(quiet=os.environ.get("RANK", "0") != "0")
errors = Console(stderr=True)

Root = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Folder of the data set.", show_default=False)
]
ConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="Its file, or a name that 'detect configs' lists.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY.SUB=VALUE]...",
        help="Settings that replace those of the config.",
        show_default=False,
    ),
]
RunOrCheckpoint = Annotated[
    Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="The model.", show_default=False)
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder.", show_default="runs/<config>-<time>"),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run in --out, or the newest run of this config."),
]
PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", help="Only print every setting and where it comes from."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
JSONFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON as well.")
]
OnError = Literal["stop", "skip"]
OnErrorOption = Annotated[
    OnError, typer.Option("--on-error", help="Faulty objects and images: stop or skip.")
]
SourceFormat = Annotated[
    Literal["voc", "coco", "yolo"] | None,
    typer.Option("--from", help="Format of ROOT.", show_default="auto-detected"),
]
SplitOfData = Annotated[
    str | None, typer.Option(metavar="NAME", help="Split of --data.", show_default=False)
]

SaveDetections = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE_OR_DIR",
        help="Where the detections go, in the form that the ending says: .json, .csv, "
        ".coco.json for COCO's results, else a folder for comp4 files.",
        show_default="<run>/detections-<split>.json",
    ),
]
Fuse = Annotated[
    bool,
    typer.Option("--fuse", help="Judge their fused detections too (weighted boxes fusion)."),
]
FuseIoU = Annotated[
    float, typer.Option(min=0, max=1, help="Boxes of a class that overlap more are fused.")
]
With = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="RUN_OR_CHECKPOINT",
        help="Fuse the detections of the model with those of this one; may be given several times.",
        show_default=False,
    ),
]


def examples(*lines: str) -> str:
    """Lines for the end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {line}" for line in lines)
