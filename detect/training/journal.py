"""metrics.jsonl: one JSON object a line, for training steps and for evaluations."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.files import write_text


class Journal:
    """Appends lines to a metrics file.

    Lines are `{"kind": "train", "phase", "epoch", "step", "loss", "terms", "learning_rate",
    "images_per_second", "data_wait"}` and `{"kind": "evaluation", "phase", "epoch", "step",
    …}` with the scores of the evaluation, such as `map_area` and `map_11point`; at the end of a
    phase, `{"kind": "phase", "phase", "step", "seconds"}` with the time that it took in this
    process, and what else the phase has to tell, such as `cache_bytes`. Epochs count from 1; steps
    count over all phases.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **line: Any) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps after `step`, which a resumed run is about to take again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # the last line of a killed run
                continue
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
