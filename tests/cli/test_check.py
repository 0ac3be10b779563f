import io
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from detect.cli.check import NUM_SHOWN_PER_RULE, print_findings
from detect.data.checking import CheckReport, Finding
from detect.data.faults import Fault
from tests.cli.conftest import run
from tests.data.checked_folder import CheckedFolder
from tests.data.voc_folder import object_xml


@pytest.fixture
def folder(tmp_path):
    return CheckedFolder(tmp_path / "set")


def check(*arguments, status=0):
    return run("data", "check", *arguments, status=status)


def test_a_sound_set(folder):
    check(folder.root)
    assert "0 errors, 0 warnings" in check(folder.root, "--strict")


def test_warnings_count_when_strict(folder):
    folder.write(4, object_xml("dog", (100, 110, 101, 119)))
    assert "[tiny-box]" in check(folder.root)
    check(folder.root, "--strict", status=1)


def test_errors_count_always(folder):
    folder.write(4, object_xml("dog", (150, 30, 199, 60)))
    assert "1 error, 0 warnings" in check(folder.root, status=1)
    check(folder.root, "--split", "test")


def test_what_cannot_be_checked(tmp_path, folder):
    check(tmp_path / "nowhere", status=2)
    assert "did you mean 'test'" in check(folder.root, "--split", "tset", status=2)
    check(folder.root, "--html", folder.image(0) / "page.html", status=2)


def test_json_and_page(folder, tmp_path):
    folder.write(4, object_xml("dog", (100, 110, 101, 119)))
    files = ["--json", tmp_path / "f.json", "--html", tmp_path / "f.html"]
    assert "f.html" in check(folder.root, *files)
    content = json.loads((tmp_path / "f.json").read_text())
    assert set(content) == {"num_images", "num_empty_images", "num_objects", "rules", "faults"}
    assert content["rules"] == {"tiny-box": 1}
    (fault,) = content["faults"]
    assert (fault["severity"], fault["object"]) == ("warning", "object 3 (dog)")
    assert set(fault) == {"file", "object", "rule", "value", "remedy", "severity"}
    assert "tiny-box" in (tmp_path / "f.html").read_text()


def many(num):
    faults = [Fault("a.xml", None, "tiny-box", f"number {n}", "do", "warning") for n in range(num)]
    return CheckReport(
        Path("set"), num, 0, num, ("dog",), tuple(Finding(fault) for fault in faults)
    )


def printed(report, show_all):
    console = Console(file=io.StringIO(), width=200)
    print_findings(report, show_all, console)
    return console.file.getvalue()


def test_a_rule_does_not_flood_the_terminal():
    text = printed(many(500), show_all=False)
    assert text.count("[tiny-box]") == NUM_SHOWN_PER_RULE
    assert f"and {500 - NUM_SHOWN_PER_RULE} more of tiny-box" in text
    assert "--json" in text
    assert "500 warnings" in text
    assert printed(many(500), show_all=True).count("[tiny-box]") == 500
    assert "more of" not in printed(many(NUM_SHOWN_PER_RULE), show_all=False)


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_names_of_files_that_are_no_utf8(folder, tmp_path):
    name = os.fsencode(folder.annotations) + b"/caf\xe9.xml"
    try:
        with open(name, "w") as file:  # noqa: PTH123 — a name of bytes
            file.write("<annotation/>")
    except OSError:
        pytest.skip("the file system takes names in UTF-8 only")
    files = ["--json", tmp_path / "f.json", "--html", tmp_path / "f.html"]
    assert r"caf\udce9.xml" in check(folder.root, *files)
    assert json.loads((tmp_path / "f.json").read_text())["rules"] == {"unlisted-annotation": 1}
