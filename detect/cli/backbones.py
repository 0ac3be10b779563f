"""`detect backbones`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from detect.backbones import BACKBONES
from detect.backbones.layers import Layer, Summary, summarize
from detect.errors import DetectError
from detect.files import write_json
from detect.wording import counted

# Columns that a layer table needs; where the output is no terminal, it gets them.
TABLE_WIDTH = 132


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
    table = Table(title=counted(len(summaries), "backbone"), title_justify="left")
    for heading in ("name", "parameters", "multiply-adds", "pixels", "stride", "grid"):
        table.add_column(heading, justify="left" if heading == "name" else "right", no_wrap=True)
    table.add_column("channels", justify="right")
    table.add_column("features", justify="right")
    table.add_column("weights")
    for summary in summaries:
        table.add_row(
            summary.name,
            f"{summary.parameters:,}",
            f"{summary.multiply_adds / 1e6:,.1f} M",
            str(summary.image_size),
            str(summary.stride),
            f"{summary.grid}×{summary.grid}",
            str(summary.channels),
            str(summary.feature_dim),
            ", ".join(summary.weights) or "—",
        )
    _wide(console).print(table)
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
    table = Table(title=f"{name}, for an image of {size}×{size}", title_justify="left")
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    columns = ("kernel", "stride", "pad", "output", "parameters", "multiply-adds", "memory")
    for heading in (*columns, "receptive field"):
        table.add_column(heading, justify="right", no_wrap=heading != "receptive field")
    for layer in summary.layers:
        table.add_row(*_cells(layer), style=None if layer.fits else "yellow")
    _wide(console).print(table)
    for line in _remarks(summary):
        console.print(line, highlight=False)
    _write(json_file, [layer.as_dict() for layer in summary.layers], console)


def _matching(patterns: Sequence[str]) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        found = BACKBONES.names_like(pattern) if "*" in pattern else [pattern]
        if not found:
            raise DetectError(f"no backbone fits {pattern!r}; 'detect backbones' lists them")
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
        f"{layer.memory / 1024:,.0f} KiB" if layer.memory else "",
        "?" if layer.receptive_field is None else str(layer.receptive_field),
    ]


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


def _wide(console: Console) -> Console:
    return console if console.is_terminal else Console(width=TABLE_WIDTH, file=console.file)


def _write(file: Path | None, rows: list[dict[str, object]], console: Console) -> None:
    if file is not None:
        write_json(file, rows)
        console.print(f"Written: {file}", highlight=False)
