"""`detect doctor`: what is installed, what is wrong with it, and the command that fixes it."""

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from rich.console import Console

from detect.cli.screen import say
from detect.version import __version__, install_command

# the dependencies of pyproject.toml
REQUIRED = (
    "torch",
    "torchvision",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "scipy",
    "scikit-image",
    "pillow",
    "pydantic",
    "PyYAML",
    "typer",
    "rich",
    "jaxtyping",
    "matplotlib",
    "defusedxml",
    "safetensors",
)
# distribution → the extra that brings it
OPTIONAL = {
    "numba": "fast",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "pycocotools": "bench",
    "faster-coco-eval": "bench",
    "torchmetrics": "bench",
    "scikit-learn": "bench",
    "pytest": "test",
}
# Wheels that install the same module cv2 over one another.
OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def examine(console: Console) -> bool:
    """Print versions, devices and faults; returns whether there are no faults."""
    console.print(f"detect {__version__}, Python {platform.python_version()} ({sys.prefix})")
    for name in REQUIRED:
        console.print(f"  {name} {_version(name) or 'missing'}", highlight=False)
    for name, extra in OPTIONAL.items():
        state = _version(name) or f"not installed (optional): {install_command(extra)}"
        say(console, f"  {name} {state}")
    faults = list(find_faults())
    if _version("torch"):
        from detect.experiment.run import choose_device, describe_device

        console.print(f"Device chosen by 'auto': {describe_device(choose_device('auto'))}")
    for fault in faults:
        say(console, f"fault: {fault}", style="red")
    if not faults:
        console.print("No problems found.")
    return not faults


def find_faults() -> Iterator[str]:
    """Each fault of the installation in a line, with the command that fixes it."""
    for name in REQUIRED:
        if _version(name) is None:
            yield f"{name} is missing: pip install {name}"
    wheels = [name for name in OPENCV_WHEELS if _version(name)]
    if len(wheels) > 1:
        yield (
            f"{' and '.join(wheels)} overwrite one another's module cv2: "
            f"pip uninstall -y {' '.join(wheels)} && pip install opencv-python-headless"
        )
    if _version("torch"):
        yield from _faults_of_torch()


def _faults_of_torch() -> Iterator[str]:
    import torch

    try:
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torchvision.ops.nms(boxes, torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError) as error:
        yield (
            f"torchvision {_version('torchvision')} does not fit torch {_version('torch')} "
            f"({str(error).splitlines()[0]}): pip install --upgrade torch torchvision"
        )
    if torch.cuda.is_available():
        try:
            torch.ones(1, device="cuda").add_(1).item()
        except RuntimeError as error:
            yield (
                f"the GPU is visible but does not compute ({str(error).splitlines()[0]}): "
                "its driver may be older than torch expects; update it, or use --device cpu"
            )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
