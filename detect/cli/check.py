"""`detect data check`: everything that is wrong with a data set, on the terminal and in files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detect.cli.screen import say
from detect.data.annotated import DataFormat
from detect.data.checking import CheckReport, check_annotated
from detect.data.classes import ClassNames
from detect.data.reading import read_annotated
from detect.files import write_json
from detect.progress import showing
from detect.visualization.check_page import write_check_page
from detect.wording import counted, listed

# Of one rule on the terminal: enough to see what it is about.
NUM_SHOWN_PER_RULE = 10


def check_data(
    root: Path,
    splits: Sequence[str] | None,
    classes: ClassNames,
    data_format: DataFormat | None,
    json_file: Path | None,
    html_file: Path | None,
    show_all: bool,
    console: Console,
) -> CheckReport:
    """Check a data set, print what was found, and write it where that is asked for.

    Raises:
        DetectError: the set cannot be read at all, or a file cannot be written.
    """
    with showing(f"Reading {root}", console) as progress:
        annotated = read_annotated(
            root, splits or None, classes, data_format, with_extras=False, progress=progress
        )
    with showing("Checking", console) as progress:
        report = check_annotated(annotated, is_whole=not splits, progress=progress)
    print_findings(report, show_all, console)
    if json_file is not None:
        write_json(json_file, report.as_dict())
    if html_file is not None:
        write_check_page(html_file, report)
        say(console, f"With images: {html_file}")
    return report


def print_findings(report: CheckReport, show_all: bool, console: Console) -> None:
    """Print the findings rule by rule, the errors first, then the sum of them."""
    left_out = 0
    for rule, findings in report.by_rule().items():
        num_shown = len(findings) if show_all else NUM_SHOWN_PER_RULE
        for finding in findings[:num_shown]:
            style = "red" if finding.fault.severity == "error" else "yellow"
            say(console, str(finding.fault), style=style)
        if len(findings) > num_shown:
            left_out += len(findings) - num_shown
            say(console, f"  … and {len(findings) - num_shown} more of {rule}")
    if left_out:
        hidden = counted(left_out, "finding")
        console.print(f"{hidden} not shown; --all, --json FILE or --html FILE shows them")
    say(
        console,
        f"{report.root}: {counted(report.num_images, 'image')}"
        f" ({report.num_empty_images} without an object), "
        f"{counted(report.num_objects, 'object')} of "
        f"{counted(len(report.class_names), 'class')} "
        f"({listed(report.class_names)}); "
        f"{counted(report.count('error'), 'error')}, {counted(report.count('warning'), 'warning')}",
    )
