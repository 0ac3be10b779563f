import os
import sys
from pathlib import Path

# The tests run side by side, and threads of torch that share a core wait for one another. Set
# before torch is imported; it holds for the processes that tests start as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Many tests start processes. Where Python must not keep compiled code, each would compile anew what
# it imports, which is more than half of the time of a short command.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from jaxtyping import install_import_hook

# From here on, every type and shape in a signature of the package is checked at each call; an int
# will do for a float, as type checkers have it.
TYPE_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook("detect", TYPE_CHECKER)
sys.dont_write_bytecode = False

REPOSITORY = Path(__file__).parent.parent


def shared_folder() -> Path:
    return Path(os.environ.get("DETECT_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, which is not part of the project."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"real data is absent: no folder {folder} (DETECT_SHARED names another)")
    return folder
