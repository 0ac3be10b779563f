"""What is installed, by which name, and how to install more of it."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from detect.cli import doctor
from detect.version import DISTRIBUTION, __version__, install_command

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


def test_the_doctor_knows_every_dependency():
    assert [name_in(line) for line in PROJECT["dependencies"]] == list(doctor.REQUIRED)
    extras = PROJECT["optional-dependencies"]
    for name, extra in doctor.OPTIONAL.items():
        assert name in map(name_in, extras[extra])
    assert set(doctor.OPTIONAL.values()) == set(extras)


def name_in(requirement):
    return re.split("[<>=]", requirement)[0]


def test_the_doctor_tells_what_is_missing_even_without_torch(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if "torch" in name else "1")
    console = Console(record=True, file=io.StringIO(), width=200)
    assert not doctor.examine(console)
    assert "torch is missing: pip install torch\n" in console.export_text()


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


# import name → distribution, where they differ
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pydantic_core": "pydantic",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "triton": "torch",  # on Linux; the kernels are loaded on use
    "yaml": "PyYAML",
}


def imports_in(nodes, needed=True):
    """The top packages that statements import, and whether the module cannot do without."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], needed) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], needed
        else:
            guards = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try, ast.If)
            yield from imports_in(
                ast.iter_child_nodes(node), needed and not isinstance(node, guards)
            )


def test_modules_import_core_dependencies_alone():
    core = set(map(name_in, PROJECT["dependencies"]))
    optional = {
        name_in(line) for lines in PROJECT["optional-dependencies"].values() for line in lines
    }
    found = set()
    for file in ROOT.glob("detect/**/*.py"):
        for module, needed in imports_in(ast.parse(file.read_text()).body):
            if module not in {*sys.stdlib_module_names, "detect", "__future__"}:
                name = DISTRIBUTIONS.get(module, module)
                found.add(name)
                assert name in (core if needed else core | optional), f"{file}: {module}"
    assert {"torch", "timm"} <= found  # one of each was seen


@pytest.mark.slow
def test_wheel_and_source_have_every_file_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("detect", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    build = "from setuptools import build_meta as b; b.build_wheel('.'); b.build_sdist('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"detect_toolkit-{__version__}-py3-")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {
            name.rpartition("/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    files = {path for path in (tmp_path / "detect").rglob("*") if path.is_file()}
    assert packed == {path.relative_to(tmp_path).as_posix() for path in files}
    with tarfile.open(tmp_path / f"detect_toolkit-{__version__}.tar.gz") as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert packed <= sources
    assert not [name for name in sources if name.startswith("tests")]
    assert "detect = detect.cli:main" in about["entry_points.txt"]
    assert f"\nName: {DISTRIBUTION}\nVersion: {__version__}\n" in about["METADATA"]
    assert "Apache License" in about["LICENSE"]
