"""Python files of users that register parts of their own, named by an environment variable.

Parts are detectors, backbones, data sets and proposal methods: whatever has a registry.

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
    """Run the files, or import the modules, that `DETECT_PLUGINS` names, separated by commas.

    Raises:
        DetectError: one of them does not exist, has the name of another module, or fails.
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
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(path.absolute()):
            return
        raise DetectError(
            f"{VARIABLE}: {path}: a module named {path.stem} is loaded already; rename the file"
        )
    specification = importlib.util.spec_from_file_location(path.stem, path.absolute())
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
