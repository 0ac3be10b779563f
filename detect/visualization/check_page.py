"""What the checker found in a data set, as one page to look at: no network, no other files.

Images are inlined as small JPEGs. The page may be filtered by severity without a script, by
radio buttons and style alone; its policy forbids scripts and everything from elsewhere.
"""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

from detect.data.checking import CheckReport, Finding
from detect.data.faults import Fault
from detect.files import write_text
from detect.visualization.fault_thumbnails import draw_finding
from detect.wording import counted

# About 10 kB each: a page of them stays below what browsers open with ease.
NUM_THUMBNAILS_PER_RULE = 200
NUM_THUMBNAILS = 2000
# Lines without an image; the JSON file has no bound.
NUM_LISTED_PER_RULE = 2000
_JPEG_QUALITY = 80
_NUM_THREADS = 4

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em;
  color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .2em 1em .2em 0; text-align: left; }
td.number { text-align: right; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; font-size: 1.2em; }
.shown { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; width: 300px; padding: .5em; border: 1px solid #ddd; border-left: 4px solid; }
figure.wide { width: 520px; }
img { display: block; max-width: 100%; margin-bottom: .5em; }
.error { border-left-color: #c00; }
.warning { border-left-color: #d90; }
.file { font-weight: 600; overflow-wrap: anywhere; }
.value, .remedy { overflow-wrap: anywhere; }
.remedy { color: #555; }
li { margin: .3em 0; }
label { margin-right: 1.5em; }
#only-errors:checked ~ main .warning, #only-errors:checked ~ main .no-error,
#only-warnings:checked ~ main .error, #only-warnings:checked ~ main .no-warning { display: none; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_check_page(path: Path, report: CheckReport) -> None:
    """Write the page of a report, whole or not at all.

    Raises:
        DetectError: the file cannot be written.
    """
    write_text(path, check_page(report))


def check_page(report: CheckReport) -> str:
    """The page of a report as HTML: a summary, then the findings of each rule with images."""
    groups = report.by_rule()
    thumbnails = _thumbnails(_chosen(groups))
    title = f"Check of {_text(str(report.root))}"
    sections = "\n".join(_section(rule, found, thumbnails) for rule, found in groups.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>{counted(report.num_images, "image")}, {report.num_empty_images} of them without an object;
{counted(report.num_objects, "object")} of {counted(len(report.class_names), "class")}
({_text(", ".join(report.class_names))}).</p>
<p><strong>{counted(report.count("error"), "error")},
{counted(report.count("warning"), "warning")}.</strong></p>
<input type="radio" name="severity" id="all" checked><label for="all">all</label>
<input type="radio" name="severity" id="only-errors"><label for="only-errors">errors</label>
<input type="radio" name="severity" id="only-warnings"><label for="only-warnings">warnings</label>
<main>
{_summary(groups)}
{sections}
</main>
</body>
</html>
"""


def _chosen(groups: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """The findings that get a thumbnail: the first of each rule, as many as there is room for."""
    chosen: list[Finding] = []
    for findings in groups.values():
        with_image = [finding for finding in findings if finding.images]
        chosen += with_image[:NUM_THUMBNAILS_PER_RULE]
    return chosen[:NUM_THUMBNAILS]


def _thumbnails(findings: Sequence[Finding]) -> dict[int, str]:
    """The data URI of each finding's image, by the finding's identity."""
    with ThreadPoolExecutor(min(_NUM_THREADS, os.cpu_count() or 1)) as pool:
        uris = pool.map(_thumbnail, findings)
        return {
            id(finding): uri for finding, uri in zip(findings, uris, strict=True) if uri is not None
        }


def _thumbnail(finding: Finding) -> str | None:
    image = draw_finding(finding)
    if image is None:
        return None
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], quality)  # it takes BGR
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


# ---- HTML -------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """Text for HTML, from whatever source; names of files may hold bytes that are no UTF-8."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)


def _severities(findings: Sequence[Finding]) -> str:
    """The CSS classes of a rule: which severities do not occur in it."""
    found = {finding.fault.severity for finding in findings}
    return " ".join(f"no-{severity}" for severity in ("error", "warning") if severity not in found)


def _summary(groups: Mapping[str, Sequence[Finding]]) -> str:
    if not groups:
        return "<p>No problems found.</p>"
    rows = "\n".join(
        f'<tr class="{_severities(findings)}"><td><a href="#{_text(rule)}">{_text(rule)}</a></td>'
        f'<td>{_text(findings[0].fault.severity)}</td><td class="number">{len(findings)}</td></tr>'
        for rule, findings in groups.items()
    )
    return f"<table><tr><th>rule</th><th>severity</th><th>number</th></tr>\n{rows}\n</table>"


def _section(rule: str, findings: Sequence[Finding], thumbnails: Mapping[int, str]) -> str:
    shown = [finding for finding in findings if id(finding) in thumbnails]
    others = [finding for finding in findings if id(finding) not in thumbnails]
    figures = "\n".join(_figure(finding, thumbnails[id(finding)]) for finding in shown)
    return (
        f'<section class="{_severities(findings)}" id="{_text(rule)}">\n'
        f"<h2>{_text(rule)} ({len(findings)})</h2>\n"
        f'<div class="shown">{figures}</div>\n{_list(others)}\n</section>'
    )


def _figure(finding: Finding, uri: str) -> str:
    width = " wide" if len(finding.images) > 1 else ""
    return (
        f'<figure class="{finding.fault.severity}{width}"><img src="{uri}" alt="">'
        f"<figcaption>{_words(finding.fault)}</figcaption></figure>"
    )


def _list(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    lines = "\n".join(
        f'<li class="{finding.fault.severity}">{_words(finding.fault)}</li>'
        for finding in findings[:NUM_LISTED_PER_RULE]
    )
    left_out = len(findings) - NUM_LISTED_PER_RULE
    more = f"<p>… and {left_out} more; --json FILE writes all of them.</p>" if left_out > 0 else ""
    return f"<ul>\n{lines}\n</ul>{more}"


def _words(fault: Fault) -> str:
    place = fault.file if fault.object is None else f"{fault.file}, {fault.object}"
    return (
        f'<div class="file">{_text(place)}</div><div class="value">{_text(fault.value)}</div>'
        f'<div class="remedy">{_text(fault.remedy)}</div>'
    )
