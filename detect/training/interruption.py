"""Ctrl-C and termination signals: finish the step, write, leave with a defined status."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType

from detect.errors import Interrupted


class Interruption:
    """While entered, the first SIGINT or SIGTERM is noted; a second one has its default effect."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "Interruption":
        # only the main thread may set handlers; elsewhere signals keep their default effect
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def error(self, checkpoint: Path, number: int) -> Interrupted:
        """The exception to leave with on signal `number`, once `checkpoint` is written."""
        return Interrupted(
            f"stopped by {signal.Signals(number).name}; everything so far is in {checkpoint}. "
            "The same command with --resume continues",
            128 + number,
        )

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
