"""What is installed, by which name, and how to install more of it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from detect.version import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what pip notes of where it took a package from
CLONE = '{"url": "file:///x", "dir_info": {"editable": true}}'
FOLDER = '{"url": "file:///x", "dir_info": {}}'


def test_the_distribution_has_one_name():
    assert PROJECT["name"] == DISTRIBUTION != "detect"


@pytest.mark.parametrize(
    ("origin", "directory", "command"),
    [
        (None, "root", 'pip install -e ".[bench]"'),
        (CLONE, "root", 'pip install -e ".[bench]"'),
        (CLONE, "else", f'pip install -e "{ROOT}[bench]"'),
        (FOLDER, "root", f'pip install "{DISTRIBUTION}[bench]"'),
        ("", "root", f'pip install "{DISTRIBUTION}[bench]"'),
    ],
    ids=["not installed", "clone", "clone from elsewhere", "folder", "wheel"],
)  # fmt: skip
def test_an_extra_is_installed_as_the_package_was(
    origin, directory, command, tmp_path, monkeypatch
):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin or None

    def distribution(name):
        if origin is None:
            raise metadata.PackageNotFoundError(name)
        assert name == DISTRIBUTION
        return Installed()

    monkeypatch.setattr(metadata, "distribution", distribution)
    monkeypatch.chdir(ROOT if directory == "root" else tmp_path)
    assert install_command("bench") == command


def test_every_extra_in_a_message_exists():
    found = set()
    for file in (*ROOT.glob("detect/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"):
        text = file.read_text()
        assert '"detect[' not in text, file  # another project's
        assert "'detect[" not in text, file
        found |= set(re.findall(r'pip install -e "\.\[(\w+)\]"', text))
        found |= set(re.findall(r'install_command\("(\w+)"\)', text))
    assert {"test", "bench", "timm"} <= found <= set(PROJECT["optional-dependencies"])
    assert all(PROJECT["optional-dependencies"].values())
