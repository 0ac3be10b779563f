"""What a data set can have wrong, one record a fault, and the error that shows them together."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from detect.errors import DetectError
from detect.wording import counted

# Called with the number of images done and the number of all.
Progress = Callable[[int, int], None]
# Rule, value and remedy of a fault whose place is known elsewhere.
Complaint = tuple[str, str, str]

# How many faults an error message shows: a screenful. All of them stay in DataFaults.faults.
NUM_SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one file.

    >>> print(Fault("Annotations/7.xml", "object 3 (dog)", "zero-size-box", "xmin = xmax = 12",
    ...             "redraw the box or delete the object"))
    Annotations/7.xml, object 3 (dog): xmin = xmax = 12 [zero-size-box]; redraw the box or delete \
the object

    Attributes:
        file: the path of the faulty file.
        object: the number from 1 and the name of the object, as in `object 3 (dog)`; None when
            the file as a whole is meant.
        rule: the name of the broken rule, lower case with hyphens; it does not change between
            versions.
        value: what was found.
        remedy: what to do.
        severity: an `error` keeps the object or the image out, or spoils what is measured on
            the set; a `warning` is only said.
    """

    file: str
    object: str | None
    rule: str
    value: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    def as_dict(self) -> dict[str, str | None]:
        """Plain data with the keys file, object, rule, value, remedy and severity."""
        return asdict(self)

    def __str__(self) -> str:
        place = self.file if self.object is None else f"{self.file}, {self.object}"
        prefix = "" if self.severity == "error" else f"{self.severity}: "
        return f"{prefix}{place}: {self.value} [{self.rule}]; {self.remedy}"


class BrokenEntry(Exception):  # noqa: N818 — it carries a fault from where it is found to its record
    """What is wrong with an entry of a file, whose place in the file is known elsewhere.

    Attributes:
        rule: of the fault.
        value: what was found.
        remedy: what to do.
    """

    def __init__(self, rule: str, value: str, remedy: str) -> None:
        super().__init__(value)
        self.rule, self.value, self.remedy = rule, value, remedy

    def at(self, path: Path, title: str | None = None) -> Fault:
        """The fault of the entry `title` of the file `path`, or of the file as a whole."""
        return Fault(str(path), title, self.rule, self.value, self.remedy)


class DataFaults(DetectError):  # noqa: N818 — it is a list of faults first, an error second
    """A data set has errors. The message shows the first of them and the count.

    Attributes:
        faults: all faults of the set, warnings included.
    """

    def __init__(
        self, faults: Sequence[Fault], roots: Sequence[Path], *, is_voc: bool = True
    ) -> None:
        self.faults = tuple(faults)
        errors = [fault for fault in faults if fault.severity == "error"]
        folders = ", ".join(dict.fromkeys(str(root) for root in roots))
        lines = [f"the data set in {folders} has {counted(len(errors), 'error')}:"]
        lines += [f"  {error}" for error in errors[:NUM_SHOWN_FAULTS]]
        if len(errors) > NUM_SHOWN_FAULTS:
            lines.append(f"  … and {len(errors) - NUM_SHOWN_FAULTS} more")
        if len(errors) < len(faults):
            lines.append(f"It also has {counted(len(faults) - len(errors), 'warning')}.")
        remedy = (
            "Fix the files, or set data.on_error=skip (of a command without a config, "
            "--on-error skip) to leave faulty objects and images out"
        )
        if is_voc:
            commands = " and ".join(
                f"`detect data check {shlex.quote(root)} --all`"
                for root in dict.fromkeys(str(root) for root in roots)
            )
            remedy += f"; {commands} lists every fault"
        lines.append(f"{remedy}.")
        super().__init__("\n".join(lines))
