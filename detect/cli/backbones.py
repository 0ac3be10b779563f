"""`detect backbones`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detect.backbones import BACKBONES
from detect.backbones.layers import Layer, Summary, summarize
from detect.cli.tables import Column, print_table
from detect.errors import DetectError
from detect.files import write_json
from detect.wording import counted

LIST_COLUMNS = (
    Column("name", "left"),
    Column("parameters"),
    Column("multiply-\nadds", rank=1),
    Column("pixels", rank=3),
    Column("stride"),
    Column("grid", rank=4),
    Column("channels", rank=2),
    Column("features", rank=5),
    Column("weights", "left"),
)
LAYER_COLUMNS = (
    Column("layer", "left", least=15, breaks="."),
    Column("kind", "left", least=10),
    Column("kernel", rank=1),
    Column("stride", rank=2),
    Column("pad", rank=3),
    Column("output"),
    Column("parameters", rank=4),
    Column("multiply-adds", rank=6),
    Column("memory", rank=7),
    Column("receptive\nfield", rank=5),
)
ELSEWHERE = "a wider terminal or --json FILE shows them"


def list_backbones(patterns: Sequence[str], json_file: Path | None, console: Console) -> None:
    """Print a row for each backbone, of the registry or of those that fit a pattern."""
    names = list(BACKBONES) if not patterns else _matching(patterns)
    summaries, refused = [], []
    with console.status("Measuring the networks") as status:
        for name in names:
            status.update(f"Measuring {name}")
            try:
                summaries.append(summarize(name))
            except DetectError as error:
                refused.append(str(error))
    rows = [
        [
            summary.name,
            f"{summary.parameters:,}",
            f"{summary.multiply_adds / 1e6:,.1f} M",
            str(summary.image_size),
            str(summary.stride),
            f"{summary.grid}×{summary.grid}",
            str(summary.channels),
            str(summary.feature_dim),
            ", ".join(summary.weights) or "—",
        ]
        for summary in summaries
    ]
    title = counted(len(summaries), "backbone")
    print_table(console, title, LIST_COLUMNS, rows, elsewhere=ELSEWHERE)
    for reason in refused:
        console.print(reason, style="yellow", markup=False, highlight=False)
    console.print(
        "Parameters and multiply-adds are of the whole network as published, for one image of "
        "that size. Any classification network of torchvision and timm is a backbone, too: "
        "'detect backbones torchvision/efficientnet_b0', 'detect backbones \"timm/convnext*\"'.",
        highlight=False,
    )
    _write(json_file, [summary.as_dict() for summary in summaries], console)


def show_backbone(
    name: str, image_size: int | None, json_file: Path | None, console: Console
) -> None:
    """Print the layers of one backbone."""
    summary = summarize(name, image_size)
    size = summary.image_size
    print_table(
        console,
        f"{name}, for an image of {size}×{size}",
        LAYER_COLUMNS,
        [_cells(layer) for layer in summary.layers],
        styles={row: "yellow" for row, layer in enumerate(summary.layers) if not layer.fits},
        elsewhere=ELSEWHERE,
    )
    for line in _remarks(summary):
        console.print(line, highlight=False)
    _write(json_file, [layer.as_dict() for layer in summary.layers], console)


def _matching(patterns: Sequence[str]) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        found = BACKBONES.names_like(pattern) if "*" in pattern else [pattern]
        if not found:
            raise DetectError(f"no backbone fits '{pattern}'; 'detect backbones' lists them")
        names += [name for name in found if name not in names]
    return names


def _cells(layer: Layer) -> list[str]:
    def pair(value: tuple[int, int] | None) -> str:
        if value is None:
            return ""
        return str(value[0]) if value[0] == value[1] else f"{value[0]}×{value[1]}"

    kernel = "" if layer.kernel is None else f"{layer.kernel[0]}×{layer.kernel[1]}"
    # height × width × channels, as the papers write volumes
    output = "×".join(str(n) for n in (*layer.output[1:], layer.output[0]))
    return [
        layer.name,
        layer.kind,
        kernel,
        pair(layer.stride) + ("" if layer.fits else " *"),
        pair(layer.padding),
        output,
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        _kibibytes(layer.memory) if layer.memory else "",
        "?" if layer.receptive_field is None else str(layer.receptive_field),
    ]


def _kibibytes(size: int) -> str:
    kibibytes = size / 1024
    return f"{kibibytes:,.0f} KiB" if kibibytes >= 10 else f"{kibibytes:.1f} KiB"


def _remarks(summary: Summary) -> list[str]:
    values = summary.memory // 4
    auxiliary = ""
    if summary.auxiliary_parameters:
        total = summary.parameters + summary.auxiliary_parameters
        auxiliary = f" ({total:,} with the auxiliary classifiers, which serve training alone)"
    lines = [
        f"Parameters: {summary.parameters:,}{auxiliary}. Multiply-adds: {summary.multiply_adds:,}.",
        f"Activations: {values:,} values, {summary.memory / 2**20:.1f} MiB in float32 for the "
        "forward pass of one image: the image and the output of every layer that writes one; "
        "layers that work in place, sums between layers and gradients are not counted.",
        f"Trunk: stride {summary.stride}, {summary.channels} channels, {summary.grid}×"
        f"{summary.grid} at the designed size. Head: {summary.feature_dim} features.",
    ]
    if not all(layer.fits for layer in summary.layers):
        lines.append(
            "* (N − F + 2P) / S is not whole here: the filter does not fit its input, which many "
            "a text calls undefined. PyTorch rounds down, and the last rows and columns of the "
            "padded input are not looked at (rounds up where the layer says ceil_mode)."
        )
    return lines


def _write(file: Path | None, rows: list[dict[str, object]], console: Console) -> None:
    if file is not None:
        write_json(file, rows)
        console.print(f"Written: {file}", highlight=False)
