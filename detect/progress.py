"""How far work is: a live line on a terminal, elsewhere a plain line once in a while."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from detect.forecast import Forecast
from detect.wording import shortened

# Seconds between two lines in a log file.
LOG_INTERVAL = 60
BAR_WIDTHS = (20, 10)
GAP = 2


class Progress:
    """Shows the name of the work, a bar, the count, the rate, the time left, and remarks.

    The line never wraps: where the terminal is narrow, the remarks give way first, then the name.

    Args:
        console: where to show it; one that is no terminal gets a line a minute.
        clock: seconds.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._live = (
            Live(console=console, transient=True, get_renderable=lambda: self, auto_refresh=True)
            if console.is_interactive and not console.quiet
            else None
        )
        self._title, self._unit, self._rate = "", "", ""
        self._done = self._begun = 0
        self._total: int | None = None
        self._remarks: Sequence[str] = ()
        self._begin = self._last_line = clock()
        self._forecast = Forecast(0, clock=clock)

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, title: str, total: int | None, done: int = 0, unit: str = "") -> None:
        """Begin work of `total` steps, `done` of which were taken before.

        Args:
            title: of the work.
            total: None where it is not known yet.
            done: of them.
            unit: of the steps in the plural, `images`, for the rate.
        """
        self._title, self._unit, self._rate = title, unit, ""
        self._done = self._begun = done
        self._total, self._remarks = total, ()
        self._begin = self._last_line = self._clock()
        self._forecast = Forecast(total or 0, done, clock=self._clock)

    def update(
        self,
        done: int,
        total: int | None = None,
        *,
        title: str | None = None,
        rate: str | None = None,
        remarks: Sequence[str] | None = None,
    ) -> None:
        """Note how far the work is.

        Args:
            done: steps.
            total: of all; None leaves it.
            title: a new one; None leaves it.
            rate: how fast it goes; None takes the mean, in `unit` a second.
            remarks: what else there is to say, the same at length first, then ever shorter; the
                first one that fits is shown.
        """
        self._done = done
        if total is not None:
            self._total = self._forecast.total = total
        self._title = self._title if title is None else title
        self._rate = self._rate if rate is None else rate
        self._remarks = self._remarks if remarks is None else remarks
        if self._live is None and self._clock() - self._last_line >= LOG_INTERVAL:
            self._last_line = self._clock()
            self.say(self._plain())

    def say(self, message: str) -> None:
        """Print a line that stays; it is broken between words on a terminal, and nowhere else."""
        soft = not self.console.is_interactive
        self.console.print(message, highlight=False, markup=False, soft_wrap=soft)

    def _counts(self) -> tuple[str, str, str]:
        """The count, the rate and the time left."""
        total = "?" if self._total is None else str(self._total)
        count = f"{self._done:>{len(total)}}/{total}"
        rate, elapsed = self._rate, self._clock() - self._begin
        if not rate and self._done > self._begun and elapsed > 0:
            rate = f"{speed((self._done - self._begun) / elapsed)} {self._unit}".rstrip() + "/s"
        left = self._forecast.seconds_left(self._done) if self._total is not None else None
        return count, rate, "-:--:--" if left is None else _clock_time(left)

    def _plain(self) -> str:
        count, rate, left = self._counts()
        parts = [part for part in (count.strip(), rate, f"{left} left", *self._remarks[:1]) if part]
        return f"{self._title}: {' | '.join(parts)}"

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        counts = [text for text in self._counts() if text]
        # one column less than there are: some terminals break a line that fills them all
        room = options.max_width - 1 - sum(len(text) + GAP for text in counts)
        title, bar, remark = self._fitted(room)
        full, empty = "#-" if options.ascii_only else "━─"
        width = round(bar * self._done / self._total) if self._total else 0
        parts = [
            Text(title, "bold"),
            Text(full * width, "bar.complete").append(empty * (bar - width), "bar.back"),
            *map(Text, (*counts, remark)),
        ]
        yield Text(" " * GAP, no_wrap=True).join(part for part in parts if part)

    def _fitted(self, room: int) -> tuple[str, int, str]:
        """Title, width of the bar and remark that go into `room` columns together."""
        for bar, remarks in ((BAR_WIDTHS[0], self._remarks[:1]), (BAR_WIDTHS[1], self._remarks)):
            for remark in remarks:
                if len(self._title) + GAP + bar + GAP + len(remark) <= room:
                    return self._title, bar, remark
        bar = next((bar for bar in BAR_WIDTHS if len(self._title) + GAP + bar <= room), 0)
        if bar:
            return self._title, bar, ""
        bar = max(min(BAR_WIDTHS[-1], room // 2), 0)
        return shortened(self._title, max(room - bar - GAP, 0)), bar, ""


@contextmanager
def showing(
    title: str, console: Console, unit: str = "images", total: int | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Show work while the block runs; what is yielded takes how much is done, and of how much."""
    with Progress(console) as progress:
        progress.start(title, total, unit=unit)
        yield progress.update


def speed(per_second: float) -> str:
    """Two digits at least: `0.52`, `1.0`, `52`, `1234`."""
    return f"{per_second:.{0 if per_second >= 10 else 1 if per_second >= 1 else 2}f}"


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
