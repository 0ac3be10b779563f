"""metrics.jsonl: one JSON object a line, for training steps and for evaluations.

The same goes into metrics.csv, a table, and to TensorBoard where that is installed.
"""

import csv
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from detect.errors import DetectError
from detect.files import write_text


class Journal:
    """Appends lines to a metrics file.

    Lines are `{"kind": "train", "phase", "epoch", "step", "loss", "terms", "learning_rate",
    "images_per_second", "data_wait"}` and `{"kind": "evaluation", "phase", "epoch", "step",
    …}` with the scores of the evaluation, such as `map_area` and `map_11point`; at the end of a
    phase, `{"kind": "phase", "phase", "step", "seconds"}` with the time that it took in this
    process, `peak_memory_mib`, the most memory of it so far, and what else the phase has to tell,
    such as `cache_bytes`. Epochs count from 1; steps count over all phases.
    """

    def __init__(self, path: Path, *, is_writing: bool = True) -> None:
        self.path = path
        self.is_writing = is_writing
        self._board: Any = None
        if is_writing:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **line: Any) -> None:
        """Append one line."""
        if not self.is_writing:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise DetectError(
                f"{self.path}: cannot be written: {error.strerror or error}; make room, then "
                "continue with --resume"
            ) from error
        self._show(line)

    def write_table(self) -> None:
        """Write all lines so far as a table, `metrics.csv`, with a column for each number."""
        if not self.is_writing:
            return
        rows = [_flat(line) for line in read_journal(self.path)]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path.with_suffix(".csv"), text.getvalue())

    def close(self) -> None:
        """Finish what TensorBoard reads."""
        if self._board:
            self._board.close()
        self._board = None

    def _show(self, line: Mapping[str, Any]) -> None:
        # to TensorBoard, where it is installed
        if self._board is None:
            self._board = _open_board(self.path.parent / "tensorboard", int(line["step"]))
        if self._board:
            for name, value in _flat(line).items():
                if isinstance(value, int | float) and name not in ("step", "epoch"):
                    self._board.add_scalar(f"{line['kind']}/{name}", value, int(line["step"]))

    def forget(self, is_undone: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the lines of what a resumed run is about to do again, and a torn last one."""
        if not self.is_writing or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except ValueError:  # the last line of a killed run
                continue
            if not is_undone(values):
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file, none where there is no file; a torn one is passed over."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # the last line of a killed run
            continue
        if isinstance(values, dict) and "kind" in values:
            yield values


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line without nesting: the terms of the loss become numbers of their own."""
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{inner}": number for inner, number in value.items()})
        else:
            flat[name] = value
    return flat


def _open_board(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or False where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from torch.utils.tensorboard import SummaryWriter

    # what a run wrote after the state that it was continued from is hidden
    return SummaryWriter(str(folder), purge_step=step)
