"""What the commands look like on narrow and plain terminals, in pipes and in log files."""

import io
import re
import sys

import pytest
from rich.console import Console

from detect.cli.backbones import show_backbone
from detect.cli.check import check_data
from detect.cli.data import draw_set, print_statistics
from detect.cli.data_sets import convert_folder, split_folder
from detect.cli.screen import LOG_WIDTH, fit_output
from detect.cli.tables import Column, print_table
from detect.data import draw_shapes

COLUMNS = (
    Column("name", "left"),
    Column("kind", "left", least=6),
    Column("count"),
    Column("size", rank=1),
    Column("weight\nin kg", rank=2),
)
ROWS = [
    ["first", "convolution", "1,000", "128×128", "17.5"],
    ["second.third", "pool", "10", "64×64", "0.5"],
]


def printed(width, columns=COLUMNS, rows=ROWS):
    console = Console(file=io.StringIO(), width=width)
    print_table(console, "Things", columns, rows)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def test_a_table_with_room_shows_all():
    lines = printed(80)
    assert lines[0] == "Things"
    assert lines[2].split() == ["name", "kind", "count", "size", "in", "kg"]
    assert [line.split() for line in lines[4:]] == ROWS
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("width", "kind", "left_out"),
    [
        (45, "convolution", ""),
        (44, "convo…tion", ""),
        (40, "con…on", ""),
        (39, "convolution", "weight in kg"),
        (33, "con…on", "weight in kg"),
        (32, "convolution", "size, weight in kg"),
    ],
)
def test_cells_are_shortened_before_columns_give_way_by_rank(width, kind, left_out):
    text = " ".join("\n".join(printed(width)).split())
    assert f"first {kind} 1,000" in text
    assert "second.third pool 10" in text
    end = f"Not shown for lack of room: {left_out}; a wider terminal shows them"
    assert text.endswith(end if left_out else "64×64 0.5")


def test_numbers_are_never_broken_and_names_are_folded():
    lines = printed(24)
    text = "\n".join(lines)
    assert "1,000" in text
    assert "size, weight in kg" in " ".join(text.split())
    assert "…" in text  # the kind
    folded = printed(12, [Column("name", "left"), Column("count")], [["a" * 12, "1,000"]])
    assert "".join(line.split()[0] for line in folded[3:]) == "a" * 12


def test_a_name_goes_on_in_the_next_line_where_it_has_a_break():
    column = Column("layer", "left", least=9, breaks=".")
    lines = printed(15, [column, Column("count")], [["block1.branch2.conv", "1"]])
    assert [line.split()[0] for line in lines[3:]] == ["block1.", "branch2.", "conv"]


@pytest.mark.parametrize(
    ("name", "width", "headings"),
    [
        ("alexnet", 80, "layer kind kernel stride pad output parameters field"),
        ("googlenet", 80, "layer kind kernel stride pad output parameters field"),
        ("alexnet", 60, "layer kind kernel stride pad output parameters"),
        (
            "googlenet",
            132,
            "layer kind kernel stride pad output parameters multiply-adds memory field",
        ),
    ],
)
def test_layers_keep_what_matters_on_narrow_terminals(name, width, headings):
    console = Console(file=io.StringIO(), width=width)
    show_backbone(name, None, None, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    line = next(line for line in text.splitlines() if line.startswith("layer"))
    assert line.split() == headings.split()
    assert "…" not in text.split()  # no column that says nothing
    left_out = {60: "multiply-adds, memory, receptive field;", 80: "multiply-adds, memory;"}
    assert left_out.get(width, "") in " ".join(text.split())
    assert ("Not shown" in text) == (width in left_out)


def test_plain_encodings_get_plainer_signs(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    console = Console(width=80)
    fit_output(console)
    console.print("3×3, IoU ≥ 0.5 – “a”… café \udce4")
    print_table(console, "Things", COLUMNS, ROWS)
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert text.startswith('3x3, IoU >= 0.5 - "a"... caf\\xe9 \\udce4')
    assert "128x128" in text


def test_logs_are_wide_unless_the_user_says_how_wide(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    console = Console()
    fit_output(console)
    assert console.width == LOG_WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    console = Console()
    fit_output(console)
    assert console.width == 60


# What no output shows: a count of one with a plural, and how Python writes its objects.
UNFIT = re.compile(
    r"(?<![\d.,])1 (images|objects|classes|errors|warnings|faults|findings|boxes|splits)\b"
    r"|PosixPath|\bNone\b|\bnp\.|tensor\(|\bdict_|\w+Source\(|\[\'|\(\'"
)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_commands_show_no_python_and_count_one_in_singular(tmp_path, width):
    console = Console(file=io.StringIO(), width=width)
    root = tmp_path / "set"
    draw_set(draw_shapes, root, 3, 0, 64, console)  # an image in each split
    check_data(root, None, "auto", None, None, None, False, console)
    for split in ("train", "val", "test"):
        print_statistics(root, split, "circle,cross,ring,square,star,triangle", None, console)
    shares = "train=0.4,val=0.3,test=0.3"
    split_folder(root, "voc", tmp_path / "split", shares, 0, False, False, "stop", console)
    convert_folder(root, None, "coco", tmp_path / "coco", False, "stop", console)
    text = console.file.getvalue()
    assert "1 image, " in text
    assert not UNFIT.search(" ".join(text.split())), text
