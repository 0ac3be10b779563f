"""What the checker hands on: a fault with what there is to look at, and the report of a set."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detect.data.faults import Fault

Box = tuple[float, float, float, float]  # (x1, y1, x2, y2) in pixels, half-open


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and the place in an image that shows it.

    Attributes:
        fault: what is wrong.
        images: the images to look at: the one that is meant, then those that it is compared to;
            none where the set as a whole is meant.
        boxes: the boxes that are meant, in the first of the images.
    """

    fault: Fault
    images: tuple[Path, ...] = ()
    boxes: tuple[Box, ...] = ()


def error(
    file: Path | str,
    title: str | None,
    rule: str,
    value: str,
    remedy: str,
    *,
    images: tuple[Path, ...] = (),
    boxes: tuple[Box, ...] = (),
) -> Finding:
    """The finding of an error; `title` names the object, if one is meant."""
    return Finding(Fault(str(file), title, rule, value, remedy, "error"), images, boxes)


def warning(
    file: Path | str,
    title: str | None,
    rule: str,
    value: str,
    remedy: str,
    *,
    images: tuple[Path, ...] = (),
    boxes: tuple[Box, ...] = (),
) -> Finding:
    """The finding of a warning; `title` names the object, if one is meant."""
    return Finding(Fault(str(file), title, rule, value, remedy, "warning"), images, boxes)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_annotated` found in a data set.

    Attributes:
        root: the folder of the set.
        num_images: the images that are listed, each counted once, faulty ones included.
        num_empty_images: those without an object.
        num_objects: of the images that can be used, faulty objects included.
        class_names: the classes that were expected, or found with `auto`.
        findings: errors and warnings: those met while reading, then those of the set.
    """

    root: Path
    num_images: int
    num_empty_images: int
    num_objects: int
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults of all findings."""
        return tuple(finding.fault for finding in self.findings)

    def count(self, severity: Literal["error", "warning"]) -> int:
        """The number of faults of one severity."""
        return sum(fault.severity == severity for fault in self.faults)

    def by_rule(self) -> dict[str, list[Finding]]:
        """The findings of each rule: rules with errors first, then the more frequent ones."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.fault.rule, []).append(finding)

        def rank(rule: str) -> tuple[bool, int, str]:
            has_errors = any(finding.fault.severity == "error" for finding in groups[rule])
            return not has_errors, -len(groups[rule]), rule

        return {rule: groups[rule] for rule in sorted(groups, key=rank)}

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the keys num_images, num_empty_images, num_objects, rules and faults.

        `rules` has the number of faults by rule.
        """
        return {
            "num_images": self.num_images,
            "num_empty_images": self.num_empty_images,
            "num_objects": self.num_objects,
            "rules": dict(sorted(Counter(fault.rule for fault in self.faults).items())),
            "faults": [fault.as_dict() for fault in self.faults],
        }
