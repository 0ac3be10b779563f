"""Commands run in the process of the tests, and the sets and runs that several files share.

A process of its own costs seconds, most of them for importing torch. What only such a process can
show (the entry point, signals, torchrun) has its own tests.
"""

import contextlib
import io
from pathlib import Path

import pytest

from detect.cli import main
from detect.cli.options import errors, output
from detect.configs import find_config
from detect.data import draw_shapes

CONFIG = find_config("yolo_tiny_shapes")
SMALL = ["training.epochs=2", "training.batch_size=8", "data.num_images=40", "data.num_workers=0",
         "detector.score_threshold=0.0001"]  # fmt: skip


def run(*arguments: object, status: int = 0, folder: Path | None = None) -> str:
    """Run `detect` and return what it printed; the exit status must be `status`.

    An exception that is not made into a message of the command line fails the test.
    """
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        contextlib.chdir(folder or Path.cwd()),
    ):
        patch.setenv("COLUMNS", "200")
        for console in (output, errors):
            patch.setattr(console, "width", 200)  # it read COLUMNS when it was made
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    for stream in (stdout, stderr):
        stream.seek(0)
    printed = stdout.read() + stderr.read()
    assert (ended.value.code or 0) == status, printed
    assert "Traceback" not in printed
    return printed


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 128×128. For reading only, as all that is shared."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    draw_shapes(folder, num_images=40, image_size=(128, 128))
    return folder


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images of 64×64."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    draw_shapes(folder, num_images=20, image_size=(64, 64))
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """A run of YOLO on `shapes`, with the settings SMALL."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    printed = run("train", CONFIG, f"data.root={shapes}", *SMALL, "--out", folder)
    assert "Device: " in printed
    assert "mAP" in printed
    return folder
