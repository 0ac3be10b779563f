"""The command line: `detect train`, `evaluate`, `infer`, `data`, `demo`, `doctor`. Floor 5.

Exit status: 0 when all went well; 1 when the work was done and found faults (in a data set, in
images that cannot be read); 2 when the input is at fault, with one message that says what to do;
128 + the number of the signal when a signal stopped a training run.
"""

import os
import sys
from collections.abc import Sequence

from detect.cli.app import app
from detect.cli.options import errors, output
from detect.cli.screen import fit_output
from detect.errors import DetectError, Interrupted
from detect.plugins import load_plugins

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments` (those of the process when None) and exit."""
    if "RANK" in os.environ:
        # DistributedDataParallel warns where no layer happens to be without a gradient
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    fit_output(output, errors)
    try:
        load_plugins()
        app(args=None if arguments is None else list(arguments), prog_name="detect")
    except DetectError as error:
        rank = os.environ.get("RANK")
        of = "" if rank is None else f" of process {rank}"
        text = f"error{of}: {error}"
        errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except Interrupted as interruption:
        errors.print(str(interruption), markup=False, highlight=False, soft_wrap=True)
        sys.exit(interruption.status)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        errors.print(f"error: {place}{reason}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
