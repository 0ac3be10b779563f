"""The suppression kernels for GPUs: interpreted on the CPU, and compiled without being run."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from detect.ops import grouped_nms, nms_triton
from tests.conftest import REPOSITORY
from tests.ops.random_boxes import integer_boxes, real_boxes, scores_with_ties
from tests.reference.boxes import greedy_nms

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs the package triton"
)

SIZES = (0, 1, 2, 63, 64, 65, 257)
ONE_PANEL = {"MARK_BYTES": 2**28, "MIN_PANEL": 1024, "ROWS_AT_A_TIME": 1024}
SMALL_PANELS = {"MARK_BYTES": 1, "MIN_PANEL": 128, "ROWS_AT_A_TIME": 64}


def groups_of(count, kind, seed=5):
    generator = torch.Generator().manual_seed(seed)
    if kind == "one":
        return torch.zeros(count, dtype=torch.int64)
    if kind == "ragged":  # one large group, some small ones
        few = torch.randint(-3, 9, (count,), generator=generator)
        return torch.where(torch.rand(count, generator=generator) < 0.5, 10**12, few)
    return torch.randint(0, max(count, 1), (count,), generator=generator)


def cases():
    found = {}
    for count in SIZES:
        for kind in ("one", "ragged"):
            for iou_threshold in (0.0, 0.3, 0.6, 1.0) if count == 65 else (0.3,):
                constants = ONE_PANEL if kind == "one" else SMALL_PANELS
                found[f"{count}-{kind}-{iou_threshold}"] = (count, kind, iou_threshold, constants)
    found["257-many"] = (257, "many", 0.3, ONE_PANEL)
    for kind in ("one", "ragged"):
        found[f"1000-{kind}-panels"] = (1000, kind, 0.3, SMALL_PANELS)
    found["1000-ragged"] = (1000, "ragged", 0.6, ONE_PANEL)
    return found


CASES = cases()
TYPES = (torch.float32, torch.float64)


def inputs(name):
    """Whole numbers, so that many an IoU is exactly the threshold; float64 in some of the cases."""
    count, kind, iou_threshold, constants = CASES[name]
    dtype = TYPES[list(CASES).index(name) % 2]
    return {
        "boxes": integer_boxes(count, 3).to(dtype),
        "scores": scores_with_ties(count, 4),
        "groups": groups_of(count, kind),
        "iou_threshold": iou_threshold,
        "constants": constants,
    }


def real_inputs():
    return {
        "boxes": real_boxes(200, 6),
        "scores": scores_with_ties(200, 7),
        "groups": groups_of(200, "ragged"),
        "iou_threshold": 0.45,
        "constants": ONE_PANEL,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    everything = {name: inputs(name) for name in CASES} | {"real": real_inputs()}
    torch.save(everything, folder / "cases.pt")
    command = [sys.executable, "-m", "tests.ops.interpreted_nms", "cases.pt", "results.pt"]
    command[-2:] = [str(folder / file) for file in command[-2:]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_equal_the_oracle(name, results):
    case = inputs(name)
    boxes, scores, groups = case["boxes"], case["scores"], case["groups"]
    lists = (boxes.tolist(), scores.tolist(), groups.tolist())
    expected = greedy_nms(*lists, case["iou_threshold"])
    mask, kept = results[name]
    assert mask.dtype == torch.bool
    assert mask.nonzero().flatten().tolist() == sorted(expected)
    if kept is not None:
        assert kept.tolist() == expected


def test_the_kernels_equal_the_matrix_on_any_coordinates(results):
    case = real_inputs()
    case.pop("constants")
    assert results["real"][1].tolist() == grouped_nms(**case, method="matrix").tolist()


def test_there_is_more_than_one_panel():
    assert 1000 > SMALL_PANELS["MIN_PANEL"] > SMALL_PANELS["MARK_BYTES"] * 8 // 1000


def test_bounds_of_groups():
    firsts, ends = nms_triton._bounds(torch.tensor([4, 4, -1, 7, 7, 7]))
    assert firsts.tolist() == [0, 0, 2, 3, 3, 3]
    assert ends.tolist() == [2, 2, 3, 6, 6, 6]


COMPILATION = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import detect.ops.nms_triton_kernels as kernels

types = dict.fromkeys(("ends", "firsts"), "*i32") | dict.fromkeys(("marks", "survivors"), "*i64")
types |= dict.fromkeys(("is_kept", "is_removed"), "*i8")
constants = dict(words_at_a_time=8, blocks_at_a_time=16, rows_at_a_time=1024)
for of_box, is_double in (("*fp32", False), ("*fp64", True)):
    for kernel in (kernels.mark, kernels.sweep, kernels.remove):
        own = {**constants, "is_double": is_double}
        own = {(kernel.arg_names.index(name),): value for name, value in own.items()
               if name in kernel.arg_names}
        signature = {
            name: "constexpr" if (place,) in own
            else of_box if name in ("coordinates", "threshold") else types.get(name, "i32")
            for place, name in enumerate(kernel.arg_names)
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=own)
        compiled = triton.compile(
            source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}
        )
        code = compiled.asm["ptx"]
        assert not any(word in code for word in ("fma.rn", "div.full", "div.approx", ".ftz")), code
        assert "div.rn" in code or kernel is kernels.sweep
print("compiled")
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_and_round_as_a_cpu_does(tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILATION],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "not found" in done.stderr and "ptxas" in done.stderr:
        pytest.skip("Triton came without an assembler")
    assert done.stdout == "compiled\n", done.stderr
