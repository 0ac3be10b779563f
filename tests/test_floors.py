"""Imports point down only and never in a circle; siblings of floor 2 do not know one another."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "detect"
FLOORS = {
    "version": 0,
    "forecast": 0,
    "progress": 0,
    "actions": 0,
    "wording": 0,
    "errors": 0,
    "registry": 0,
    "configs": 0,
    "files": 0,
    "plugins": 0,
    "settings": 0,
    "yaml_text": 0,
    "ops": 0,
    "detection_table": 1,
    "structures": 1,
    "data": 2,
    "backbones": 2,
    "proposals": 2,
    "training": 2,
    "evaluation": 2,
    "detectors": 3,
    "config": 4,
    "experiment": 4,
    "cli": 5,
    "benchmarks": 5,
    "visualization": 5,
    "explain": 5,
    "serve": 5,
    "__main__": 6,
    "face": 6,
    "": 6,  # detect/__init__.py: the face of the package
}
STRANGERS = {("detectors", "evaluation")}  # they meet in Detections
MOST_LINES = 600
NAMES_THAT_SAY_NOTHING = {"utils", "util", "misc", "common", "helpers"}


def unit_of(module: str) -> str:
    """The part of the house that a module belongs to: `detect.ops.iou` → `ops`."""
    return [*module.split("."), ""][1]


def module_of(file: Path, package: Path) -> str:
    parts = [package.name, *file.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_or_face(name: str) -> str:
    """`detect.ops` names a part of the house, `detect.load` comes from its face."""
    return name if unit_of(name) in FLOORS else name.split(".")[0]


def used_attributes(tree: ast.Module, package: Path):
    """What a plain `import detect` is used for: `detect.load` after it, with the line of each."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    if any(alias.name == package.name for node in imports for alias in node.names):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == package.name:
                yield part_or_face(f"{package.name}.{node.attr}"), node.lineno


def imported_modules(file: Path, package: Path):
    """The modules of the package that a file imports anywhere, with the line of each."""
    own = module_of(file, package).split(".")
    base = own if file.name == "__init__.py" else own[:-1]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield from used_attributes(tree, package)
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name != package.name]
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from detect import ops` names the module ops, `from detect.ops import nms` ops itself
            names = [f"{module}.{alias.name}" for alias in node.names]
            if module == package.name:
                names = [part_or_face(name) for name in names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names = [
                argument.value
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            ]
        for name in names:
            if name.split(".")[0] == package.name:
                yield name, node.lineno


def violations(package: Path):
    found = []
    for file in sorted(package.rglob("*.py")):
        own = unit_of(module_of(file, package))
        if own not in FLOORS:
            found.append(f"{file.name}: {own} has no floor; give it one in this test")
            continue
        for name, line in imported_modules(file, package):
            other = unit_of(name)
            if other == own:
                continue
            if other not in FLOORS:
                found.append(f"{file.name}:{line}: imports {name}, which has no floor")
            elif FLOORS[other] > FLOORS[own]:
                found.append(f"{file.name}:{line}: {own} imports {name} from above")
            elif FLOORS[other] == FLOORS[own] == 2:
                found.append(f"{file.name}:{line}: {own} imports its sibling {name}")
            elif (own, other) in STRANGERS:
                found.append(f"{file.name}:{line}: {own} must not know {name}")
    return found


def packages_above(module: str) -> set[str]:
    """`detect.ops.iou` → `detect.ops`, `detect`."""
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def import_graph(package: Path) -> dict[str, set[str]]:
    """The modules that each module needs, wherever in it the import stands.

    An import inside a function, or for type checkers alone, would hide a circle, not end it. With a
    module, the packages that it lies in are needed too, except those that the importer lies in
    itself: they are being imported already.
    """
    modules = {module_of(file, package): file for file in package.rglob("*.py")}
    graph = {}
    for module, file in modules.items():
        needed = set()
        for name, _ in imported_modules(file, package):
            home = name if name in modules else name.rpartition(".")[0]  # a name from a module
            needed |= {home} | (packages_above(home) - packages_above(module))
        graph[module] = (needed & modules.keys()) - {module}
    return graph


def circle(package: Path) -> list[str]:
    """Modules each of which imports the one before it, the first that is found; none is empty."""
    try:
        TopologicalSorter(import_graph(package)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def long_files(package: Path) -> list[str]:
    """Files of more lines than a file should have whose docstring does not give the reason."""
    found = []
    for file in sorted(package.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        if text.count("\n") > MOST_LINES and "one file because" not in " ".join(docstring.split()):
            found.append(f"{file.name}: {text.count(chr(10))} lines")
    return found


def test_imports_point_down():
    assert violations(PACKAGE) == []


def test_no_imports_form_a_circle():
    assert circle(PACKAGE) == []


def test_long_files_give_a_reason():
    assert long_files(PACKAGE) == []


def test_every_file_says_what_it_is_about():
    names = {file.stem for file in PACKAGE.rglob("*.py")}
    assert names & NAMES_THAT_SAY_NOTHING == set()


def plant(folder: Path, file: str, code: str) -> Path:
    package = folder / "detect"
    for name in ("__init__.py", "ops/__init__.py", "data/voc.py", "evaluation/voc.py", file):
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (package / file).write_text(code)
    return package


@pytest.mark.parametrize(
    ("file", "code", "expected"),
    [
        ("ops/nms.py", "from detect.structures import Detections", "ops imports detect.struct"),
        ("ops/nms.py", "import detect.structures as records", "from above"),
        ("errors.py", "from detect import structures", "from above"),
        ("errors.py", "from . import structures", "from above"),
        ("data/voc.py", "from ..detectors import yolo", "from above"),
        ("data/deep/voc.py", "from ...evaluation import voc", "its sibling"),
        ("data/__init__.py", "from ..evaluation import voc", "its sibling"),
        ("data/voc.py", "from detect.evaluation import VOCEvaluator", "data imports its sibling"),
        ("training/loop.py", "def run():\n    from detect.data import voc", ":2: training imports"),
        ("backbones/tiny.py", "if TYPE_CHECKING:\n    import detect.training.loop", ":2: backbo"),
        ("proposals/grid.py", "importlib.import_module('detect.backbones.tiny')", "its sibling"),
        ("detectors/yolo.py", "import detect.evaluation", "detectors must not know"),
        ("detectors/yolo.py", "from detect import evaluation", "detectors must not know"),
        ("detectors/yolo.py", "from detect.config import Config", "from above"),
        ("experiment.py", "from detect.cli import main", "from above"),
        ("structures.py", "from detect import load", "structures imports detect from above"),
        (
            "structures.py",
            "import detect\n\ndetect.load('a')",
            ":3: structures imports detect from",
        ),
        ("data/voc.py", "import detect\n\ndetect.evaluation.x", ":3: data imports its sibling"),
        ("extras/thing.py", "", "extras has no floor"),
        ("cli.py", "import detect.extras", "which has no floor"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, code, expected):
    (found,) = violations(plant(tmp_path, file, code))
    assert expected in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("ops/nms.py", "from detect.errors import DetectError\nfrom . import iou"),
        ("data/voc.py", "from detect.data.images import read_image\nimport detect.structures"),
        ("detectors/yolo.py", "from detect import ops\nfrom detect.training import Phase"),
        ("experiment.py", "from detect.config import Config\nimport detect.evaluation"),
        ("cli.py", "from detect.visualization import drawing\nfrom detect import experiment"),
        ("__init__.py", "from detect.experiment.model import load"),
        ("data/voc.py", "import torch, detection.evaluation"),
        ("training/checkpoints.py", "from detect.version import __version__"),
    ],
)
def test_an_import_from_below_is_legal(tmp_path, file, code):
    assert violations(plant(tmp_path, file, code)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"ops/iou.py": "from detect.ops import nms", "ops/nms.py": "from . import iou"},
            {"detect.ops.iou", "detect.ops.nms"},
        ),
        (
            {
                "ops/iou.py": "import detect.ops.nms",
                "ops/nms.py": "def f():\n    from . import iou",
            },
            {"detect.ops.iou", "detect.ops.nms"},
        ),
        (
            {
                "ops/iou.py": "if TYPE_CHECKING:\n    from detect.ops.nms import nms",
                "ops/nms.py": "from detect.ops.soft import soft",
                "ops/soft.py": "importlib.import_module('detect.ops.iou')",
            },
            {"detect.ops.iou", "detect.ops.nms", "detect.ops.soft"},
        ),
        # through what a package offers
        (
            {"ops/__init__.py": "from .nms import x", "ops/nms.py": "from detect.ops import y"},
            {"detect.ops", "detect.ops.nms"},
        ),
        (
            {
                "__init__.py": "from detect.errors import Fault",
                "errors.py": "import detect\ndetect.x",
            },
            {"detect", "detect.errors"},
        ),
        # a module brings its package, and all that this imports
        (
            {
                "data/reading/__init__.py": "from detect.data.reading.all import everything",
                "data/reading/all.py": "from detect.data.voc import VOC",
                "data/reading/rows.py": "",
                "data/voc.py": "from detect.data.reading.rows import Row",
            },
            {"detect.data.reading", "detect.data.reading.all", "detect.data.voc"},
        ),
    ],
)
def test_a_planted_circle_is_found(tmp_path, files, expected):
    for file, code in files.items():
        package = plant(tmp_path, file, code)
    assert set(circle(package)) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"ops/iou.py": "import torch, detection.ops", "ops/nms.py": "from detect.ops import iou"},
        {"ops/__init__.py": "from .nms import x", "ops/nms.py": "from detect.ops.iou import y"},
        {"__init__.py": "from detect.data import x", "data/voc.py": "from detect import ops"},
    ],
)
def test_a_chain_is_no_circle(tmp_path, files):
    for file, code in files.items():
        package = plant(tmp_path, file, code)
    assert circle(package) == []


@pytest.mark.parametrize(
    ("docstring", "lines", "is_long"),
    [
        ("Boxes.", MOST_LINES, False),
        ("Boxes.", MOST_LINES + 1, True),
        ("Boxes.\n\nThese are one file\nbecause a box is one thing.\n", MOST_LINES + 1, False),
    ],
)
def test_a_long_file_is_found(tmp_path, docstring, lines, is_long):
    head = f'"""{docstring}"""\n'
    package = plant(tmp_path, "boxes.py", head + "#\n" * (lines - head.count("\n")))
    assert bool(long_files(package)) == is_long
