"""Would the tests notice? Change the code in one place, run its tests, and do so many times.

    python tools/mutants.py --number 200 --seed 0 --files "ops/*.py" structures.py

A mutant that its tests pass is printed as a difference: a test is missing, or nothing was changed.
Those of which the latter is known stand in equivalent_mutants.txt with the reason and do not count.
The process that forks has imported what takes seconds. No file is written: the changed source
exists in the memory of the fork.
"""

import argparse
import ast
import copy
import difflib
import importlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPORTED_BEFOREHAND = "torch torchvision hypothesis.extra.numpy beartype jaxtyping sklearn.svm"
FILES = ("structures.py", "evaluation/voc.py", "evaluation/coco.py", "ops/*.py")
LEFT_OUT = ("__init__", "nms_triton", "nms_triton_kernels")  # their tests are other processes'
TESTS = {  # of the other files: evaluation/NAME.py → tests/evaluation/test_NAME.py
    "structures": "tests/test_structures.py",
    "groups": "tests/ops/test_nms.py tests/ops/test_soft_nms.py tests/ops/test_merge.py",
    "nms_fixed_point": "tests/ops/test_nms.py",
    "overlapping_pairs": "tests/ops/test_overlapping_pairs.py tests/ops/test_nms.py",
    "processes": "tests/training/test_processes.py",
    "compiled": "tests/ops/test_svm.py",
    **{f"svm_{part}": "tests/ops/test_svm.py" for part in ("dual", "kernels", "newton", "problem")},
}
PAIRS = """Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, Add Sub, Mult Div, BitAnd BitOr, And Or,
    minimum maximum, min max, any all, amin amax, zeros ones, zeros_like ones_like"""
OTHER = dict(pair.split() for pair in PAIRS.split(","))
OTHER |= {other: one for one, other in OTHER.items()}
OTHER |= {"FloorDiv": "Mult", "Mod": "Mult"}
SYMMETRIC = re.compile(
    r"\b(max|min|maximum|minimum)$"
)  # of whose arguments the order decides nothing
# Constants that say how much is done at once: any value gives the same results, as tests hold.
AMOUNTS = re.compile(r"[A-Z_]*(AT_A_TIME|AT_ONCE|PAIRS|CELLS|CHUNK|MATRIX|BLOCK|BETWEEN)[A-Z_]*$")


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(copy.deepcopy(node))), **fields})


def mutants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare(ops=[operator]):
            yield changed(node, ops=[getattr(ast, OTHER[type(operator).__name__])()])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            if type(op).__name__ in OTHER:
                yield changed(node, op=getattr(ast, OTHER[type(op).__name__])())
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.If() | ast.IfExp() | ast.While():
            yield changed(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Call(args=[first, second, *rest]) if not SYMMETRIC.search(ast.unparse(node.func)):
            yield changed(node, args=[second, first, *rest])
        case ast.Attribute(attr=name) if name in OTHER:
            yield changed(node, attr=OTHER[name])
    match node:
        case ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()


def sources(tree: ast.AST, node: ast.AST) -> Iterator[str]:
    """The code of `tree` with each change below `node` in turn, but to annotations and messages."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "exc"):
            continue
        siblings = value if isinstance(value, list) else [value]
        for index, child in enumerate(siblings):
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.Assign) and AMOUNTS.match(ast.unparse(child.targets[0])):
                continue
            for mutant in mutants(child):
                siblings[index] = mutant
                setattr(node, field, siblings if isinstance(value, list) else mutant)
                yield ast.unparse(ast.fix_missing_locations(tree))
            siblings[index] = child
            setattr(node, field, value)
            yield from sources(tree, child)


def run_tests(tests: str, file: Path, source: str) -> None:
    """In a fork: import `source` instead of the file, run the tests, and end with their status."""
    os.setpgid(0, 0)
    read = SourceFileLoader.get_data

    def read_changed(loader: SourceFileLoader, path: str) -> bytes:
        if path.endswith(".pyc") and Path(path).name.startswith(f"{file.stem}."):
            raise OSError("compiled from the unchanged file")
        return source.encode() if Path(path) == file else read(loader, path)

    SourceFileLoader.get_data = read_changed  # type: ignore[method-assign, assignment]
    SourceFileLoader.set_data = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder  # numba knows what it keeps by the file's date
        options = ["-x", "-n", "0", "-p", "no:cacheprovider", "--basetemp", f"{folder}/tests"]
        status = importlib.import_module("pytest").main([*options, *tests.split()])
    os._exit(int(status))


def is_noticed(file: Path, source: str, limit: float) -> bool:
    """Whether the tests of a file fail, or do not end in `limit` seconds, with `source` in it."""
    process = os.fork()
    if process == 0:
        run_tests(
            TESTS.get(file.stem, f"tests/{file.parent.name}/test_{file.stem}.py"), file, source
        )
    deadline = time.monotonic() + limit
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        time.sleep(0.02)
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
    return ended[1] != 0


def main() -> None:
    """Run the mutants, print those that survive, and the share that does not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs="*", default=FILES)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED_BEFOREHAND.split():
        importlib.import_module(name)
    equivalent = (ROOT / "tools/equivalent_mutants.txt").read_text().splitlines()
    found = sorted({file for name in arguments.files for file in (ROOT / "detect").glob(name)})
    trees = {file: ast.parse(file.read_text()) for file in found if file.stem not in LEFT_OUT}
    plain = {file: ast.unparse(tree) for file, tree in trees.items()}
    possible = [(file, source) for file, tree in trees.items() for source in sources(tree, tree)]
    chosen = random.Random(arguments.seed).sample(possible, min(arguments.number, len(possible)))
    limits: dict[Path, float] = {}
    survivors = judged = 0
    for file, source in sorted(chosen):
        lines = [text.splitlines() for text in (plain[file], source)]
        difference = list(difflib.unified_diff(*lines, str(file), n=2, lineterm=""))[2:]
        changes = [line[0] + line[1:].strip() for line in difference if line[0] in "+-"]
        if " ".join([file.name, *changes]) in equivalent:
            continue
        if file not in limits:
            begin = time.monotonic()
            if is_noticed(file, plain[file], 600):
                raise SystemExit(f"{file}: its tests fail without a change")
            limits[file] = 30 + 10 * (time.monotonic() - begin)
        judged += 1
        if not is_noticed(file, source, limits[file]):
            survivors += 1
            print(f"{file.relative_to(ROOT)} survives", *difference, sep="\n", flush=True)
    share = 1 - survivors / max(1, judged)
    print(f"{judged} of {len(possible)} mutants, {survivors} survive, {share:.1%} are noticed")


if __name__ == "__main__":
    main()
