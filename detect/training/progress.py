"""What training shows: a live line on a terminal, a line an epoch elsewhere."""

import time
from collections.abc import Callable, Mapping

from rich.console import Console

from detect.progress import Progress, speed


class ProgressDisplay(Progress):
    """Shows a phase's epoch, steps, images a second and time left, then its losses.

    Where the terminal is narrow, the share of time spent waiting for data gives way first, then the
    terms of the loss one by one, the last one first, then the loss.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock=clock)
        self._phase, self._epochs, self._steps_per_epoch = "", 0, 0

    def start_phase(self, name: str, total: int, done: int, epochs: int = 0) -> None:
        """Begin the line of a phase, `done` of whose steps were taken before.

        Args:
            name: of the phase.
            total: steps.
            done: of them.
            epochs: of the phase; 0 where it has none.
        """
        self._phase, self._epochs = name, epochs
        self._steps_per_epoch = total // epochs if epochs else 0
        self.start(self._titled(done), total, done)

    def step(self, count: int = 1) -> None:
        """Take a step, or several."""
        done = self._done + count
        self.update(done, title=self._titled(done - 1))

    def show_losses(self, terms: Mapping[str, float], per_second: float, waiting: float) -> None:
        """Show losses, images a second and the share of the time spent waiting for data."""
        self._rate = f"{speed(per_second)} images/s"
        names = list(terms)
        cut = [
            f"loss {sum(terms.values()):.3f} ({_listed(terms, names[:kept])}, …)"
            for kept in range(len(names) - 1, 0, -1)
        ]
        whole = describe_losses(terms)
        self._remarks = (
            f"{whole}  waiting for data {waiting:.0%}",
            whole,
            *cut,
            f"loss {sum(terms.values()):.3f}",
        )

    def show_judging(self, done: int, total: int) -> None:
        """Show how far an evaluation between two epochs is."""
        counts = f"judging {done}/{total}"
        self._remarks = (f"{counts} images", counts)

    def _titled(self, done: int) -> str:
        if not self._epochs:
            return self._phase
        epoch = min(done // max(self._steps_per_epoch, 1) + 1, self._epochs)
        return f"{self._phase} {epoch}/{self._epochs}"


def describe_losses(terms: Mapping[str, float]) -> str:
    """`loss 1.234 (coordinates 0.5, object 0.7)`."""
    return f"loss {sum(terms.values()):.3f} ({_listed(terms, list(terms))})"


def _listed(terms: Mapping[str, float], names: list[str]) -> str:
    return ", ".join(f"{name} {terms[name]:.3g}" for name in names)
