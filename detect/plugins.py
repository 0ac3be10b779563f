"""Python files of users that register backbones of their own, named by an environment variable.

Only the environment names them, never a config or a checkpoint: a file that came from elsewhere
must not decide what code runs here.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from detect.errors import DetectError

VARIABLE = "DETECT_PLUGINS"


def load_plugins() -> None:
    """Run the files, or import the modules, that `DETECT_PLUGINS` names, with commas between.

    Raises:
        DetectError: one of them is not there, or fails.
    """
    for name in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        try:
            _run_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        except DetectError:
            raise
        except Exception as error:  # it is any code
            raise DetectError(
                f"{VARIABLE}: {name} cannot be loaded: {type(error).__name__}: {error}"
            ) from error


def _run_file(path: Path) -> None:
    if not path.is_file():
        raise DetectError(
            f"{VARIABLE}: expected a Python file or the name of a module, found no file {path}"
        )
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
