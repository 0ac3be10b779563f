"""What training shows on the screen: a live line on a terminal, a line per epoch elsewhere."""

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressDisplay:
    """Shows a phase's loss terms, speed, share of time spent waiting for data and time left.

    Args:
        console: where to show them; on one that is no terminal only whole epochs are reported.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "ProgressDisplay":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def start_phase(self, name: str, total_steps: int, done: int) -> None:
        """Begin the bar of a phase, `done` of whose steps were taken before."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.add_task(name, total=total_steps, completed=done, status="")

    def step(self, status: str, num_steps: int = 1) -> None:
        """Advance the bar."""
        for task in self._progress.task_ids:
            self._progress.update(task, advance=num_steps, status=status)

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)


def describe_losses(terms: Mapping[str, float]) -> str:
    """`loss 1.234 (coordinates 0.5, object 0.7)`."""
    parts = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
    return f"loss {sum(terms.values()):.3f} ({parts})"
