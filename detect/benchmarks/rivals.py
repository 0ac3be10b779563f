"""The libraries that benchmarks compare with; none of them is needed otherwise."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from detect.errors import DetectError
from detect.version import install_command

# The name to import → the name to install.
RIVALS = {
    "pycocotools": "pycocotools",
    "faster_coco_eval": "faster-coco-eval",
    "torchmetrics": "torchmetrics",
}


def missing_rivals(modules: Sequence[str] | None = None) -> list[str]:
    """Those of `modules`, by default of all rivals, that are not installed: what to install."""
    wanted = RIVALS if modules is None else modules
    return [RIVALS[name] for name in wanted if importlib.util.find_spec(name) is None]


def import_rival(module: str) -> Any:
    """A rival's module, such as `pycocotools.coco`.

    Raises:
        DetectError: it is not installed.
    """
    check_rivals([module.partition(".")[0]])
    return importlib.import_module(module)


def check_rivals(modules: Sequence[str] | None = None) -> None:
    """Raise a DetectError that says how to install what is missing, if anything is."""
    missing = missing_rivals(modules)
    if missing:
        raise DetectError(
            f"the benchmark compares with {', '.join(missing)}, which is not installed: "
            + install_command("bench")
        )
