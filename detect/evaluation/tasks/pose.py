"""How well joints are located: the share of correct keypoints (PCK) and of correct parts (PCP).

A joint is correct at α if it lies within α × the person's size of where it is labeled; hidden
joints that are labeled count. What the size is, the normalizer says:

- `torso`: the distance of left hip and right shoulder (FLIC: Sapp & Taskar 2013), and
  where one of them is not labeled, of right hip and left shoulder.
- `box`: the longer side of the person's box (Yang & Ramanan 2013).
- `head`: the distance of neck and head top, which makes it PCKh; customary is α = 0.5 (Andriluka et
  al. 2014). Deviation: theirs is 0.6 × the diagonal of a head box, which joints lack.

A limb is correct if both its ends lie within half the limb's labeled length of where they are
labeled: the strict PCP of Eichner et al. 2012, as Toshev & Szegedy 2014, section 4, have it.

A person who is alone in the image is compared with the first detection, others with the detection
whose box has the highest IoU with theirs, the highest-scored of equal ones; labels are not looked
at. Without a detection, or without one that touches the person's box, nothing of a person is
correct. One detection may stand for several persons.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.numbers import as_text, mean_of_defined, none_for_nan, ratio
from detect.evaluation.tables import report_table
from detect.ops import box_iou
from detect.structures import Detections, GroundTruth
from detect.wording import counted

Normalizer = Literal["torso", "box", "head"]

ALPHAS = (0.05, 0.1, 0.2, 0.5)
LIMB_FRACTION = 0.5  # Eichner et al. 2012

# The pairs of joints whose distance is the size of a person; the first that is labeled counts.
_PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "torso": (("left_hip", "right_shoulder"), ("right_hip", "left_shoulder")),
    "head": (("neck", "head_top"),),
}
_SIZES = {
    "torso": "the distance of left hip and right shoulder, or else of right hip and left shoulder",
    "box": "the longer side of the person's box",
    "head": "the distance of neck and head top (PCKh)",
}
JOINT_RULE = (
    "a joint is correct at α if it lies within α × the person's size of where it is labeled; "
    "hidden joints that are labeled count"
)
LIMB_RULE = "a limb is correct if both its ends lie within half its labeled length (strict PCP)"
MATCHING_RULE = (
    "a person alone in the image is compared with the first detection, others with the one whose "
    "box overlaps theirs most; without one, nothing is correct"
)
LEFT_OUT_RULE = "difficult persons and those without a labeled joint are left out"
MEAN_RULE = "a joint or limb that is never labeled stays out of the mean"


@dataclass(frozen=True, slots=True, eq=False)
class PoseReport:
    """How many joints and limbs were found; every number of it follows from these fields.

    Attributes:
        joint_names: the name of each of K joints.
        limbs: `[L]` pairs of joints.
        normalizer: what the size of a person is.
        num_labeled: `[K]` the persons with a size in whom the joint is labeled.
        num_correct: for each α, `[K]` those of them in whom the joint is correct.
        num_limbs: `[L]` the persons in whom both ends of the limb are labeled.
        num_correct_limbs: `[L]` those of them in whom the limb is correct.
        num_images: all images.
        num_persons: the persons judged.
        num_left_out: persons who are difficult or have no labeled joint.
        num_without_detection: persons judged to whom no detection belongs.
        num_without_size: persons judged whose size is unknown, because the joints for it are
            not labeled or lie in one place; they count for PCP, but not for PCK.
    """

    joint_names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    normalizer: Normalizer
    num_labeled: tuple[int, ...]
    num_correct: Mapping[float, tuple[int, ...]]
    num_limbs: tuple[int, ...]
    num_correct_limbs: tuple[int, ...]
    num_images: int
    num_persons: int
    num_left_out: int
    num_without_detection: int
    num_without_size: int

    def __repr__(self) -> str:
        return (
            f"PoseReport: {self._shares()}, PCP {as_text(self.pcp)}, "
            f"{counted(self.num_persons, 'person')}, {counted(self.num_images, 'image')}"
        )

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training."""
        return {"pck_20": self.pck(0.2), "pcp": self.pcp}

    def pck(self, alpha: float) -> float:
        """Share of all labeled joints that are correct at `alpha`, in 0…1; nan without any."""
        return ratio(sum(self._correct(alpha)), sum(self.num_labeled))

    def joint_pck(self, alpha: float) -> dict[str, float]:
        """The PCK of each joint at `alpha`, in 0…1; nan where it is never labeled."""
        pairs = zip(self._correct(alpha), self.num_labeled, strict=True)
        return dict(zip(self.joint_names, (ratio(*pair) for pair in pairs), strict=True))

    def mean_pck(self, alpha: float) -> float:
        """Mean PCK at `alpha` over the joints that are labeled somewhere, in 0…1; nan without."""
        return mean_of_defined(self.joint_pck(alpha).values())

    @property
    def pcp(self) -> float:
        """Share of all labeled limbs that are correct, in 0…1; nan without any."""
        return ratio(sum(self.num_correct_limbs), sum(self.num_limbs))

    @property
    def limb_pcp(self) -> dict[str, float]:
        """The PCP of each limb, in 0…1; nan where it is never labeled."""
        pairs = zip(self.num_correct_limbs, self.num_limbs, strict=True)
        return dict(zip(self.limb_names, (ratio(*pair) for pair in pairs), strict=True))

    @property
    def mean_pcp(self) -> float:
        """Mean PCP over the limbs that are labeled somewhere, in 0…1; nan without."""
        return mean_of_defined(self.limb_pcp.values())

    @property
    def limb_names(self) -> tuple[str, ...]:
        """The name of each limb, the names of its ends with a hyphen between."""
        return tuple(f"{self.joint_names[a]}-{self.joint_names[b]}" for a, b in self.limbs)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON.

        The keys are stable: `protocol`; `pck` and `mean_pck`, which map each α, written as `0.05`,
        to a number; `pcp` and `mean_pcp`; `num_images`, `num_persons`, `num_left_out`,
        `num_without_detection` and `num_without_size`; `joints`, which maps the name of each joint
        to `pck` (by α) and `num_labeled`; and `limbs`, which maps the name of each limb to `pcp`
        and `num_labeled`. A number that is not defined is None.
        """
        by_joint = {alpha: self.joint_pck(alpha) for alpha in self.num_correct}
        return {
            "protocol": self._protocol(),
            "pck": {f"{alpha:g}": none_for_nan(self.pck(alpha)) for alpha in self.num_correct},
            "mean_pck": {
                f"{alpha:g}": none_for_nan(self.mean_pck(alpha)) for alpha in self.num_correct
            },
            "pcp": none_for_nan(self.pcp),
            "mean_pcp": none_for_nan(self.mean_pcp),
            "num_images": self.num_images,
            "num_persons": self.num_persons,
            "num_left_out": self.num_left_out,
            "num_without_detection": self.num_without_detection,
            "num_without_size": self.num_without_size,
            "joints": {
                name: {
                    "pck": {
                        f"{alpha:g}": none_for_nan(pck[name]) for alpha, pck in by_joint.items()
                    },
                    "num_labeled": count,
                }
                for name, count in zip(self.joint_names, self.num_labeled, strict=True)
            },
            "limbs": {
                name: {"pcp": none_for_nan(pcp), "num_labeled": count}
                for (name, pcp), count in zip(self.limb_pcp.items(), self.num_limbs, strict=True)
            },
        }

    def in_words(self) -> str:
        """The shares of all joints and limbs and the protocol as one paragraph."""
        return (
            f"{self._shares()} of {counted(sum(self.num_labeled), 'labeled joint')}, PCP "
            f"{as_text(self.pcp)} of {counted(sum(self.num_limbs), 'labeled limb')}. "
            f"{counted(self.num_persons, 'person')} in {counted(self.num_images, 'image')}: "
            f"{self.num_without_detection} without a detection, {self.num_without_size} without a "
            f"size, left out of {self._metric}. The size is {_SIZES[self.normalizer]}; "
            f"{JOINT_RULE}; {LIMB_RULE}; {MATCHING_RULE}; "
            f"{LEFT_OUT_RULE} ({self.num_left_out} here); {MEAN_RULE}."
        )

    def _shares(self) -> str:
        return ", ".join(
            f"{self._metric}@{alpha:g} {as_text(self.pck(alpha))}" for alpha in self.num_correct
        )

    def tables(self) -> list[Table]:
        """The one table, in a list as every report has it."""
        return [self.table()]

    def table(self) -> Table:
        """A table for the terminal: a row for each joint and limb, the means, the protocol."""
        alphas = list(self.num_correct)
        table = report_table(
            "joint or limb",
            ("labeled", *(f"{self._metric}\n@{alpha:g}" for alpha in alphas), "\nPCP"),
            footer=(
                "mean",
                "",
                *(as_text(self.mean_pck(a)) for a in alphas),
                as_text(self.mean_pcp),
            ),
            caption=self.in_words(),
        )
        by_joint = [self.joint_pck(alpha) for alpha in alphas]
        for name, count in zip(self.joint_names, self.num_labeled, strict=True):
            # a name is no markup, whatever brackets it has
            table.add_row(Text(name), str(count), *(as_text(pck[name]) for pck in by_joint), "")
        table.add_section()
        for (name, pcp), count in zip(self.limb_pcp.items(), self.num_limbs, strict=True):
            table.add_row(Text(name), str(count), *("" for _ in alphas), as_text(pcp))
        return table

    @property
    def _metric(self) -> str:
        return "PCKh" if self.normalizer == "head" else "PCK"

    def _protocol(self) -> dict[str, Any]:
        return {
            "name": f"{self._metric} and PCP",
            "normalizer": self.normalizer,
            "size": _SIZES[self.normalizer],
            "alphas": list(self.num_correct),
            "joint": JOINT_RULE,
            "limb": LIMB_RULE,
            "matching": MATCHING_RULE,
            "left_out": LEFT_OUT_RULE,
            "mean": MEAN_RULE,
        }

    def _correct(self, alpha: float) -> tuple[int, ...]:
        if alpha not in self.num_correct:
            known = ", ".join(f"{known:g}" for known in self.num_correct)
            raise ValueError(f"alpha: expected one of {known}, found {alpha}")
        return self.num_correct[alpha]


class PoseEvaluator:
    """Collects detections and truths image by image and computes PCK and PCP.

    Args:
        joint_names: the name of each of K joints.
        limbs: pairs of joints, counted from 0.
        normalizer: what the size of a person is; `torso` needs the joints `left_hip` and
            `right_shoulder` or `right_hip` and `left_shoulder`, `head` needs `neck` and `head_top`.

    Raises:
        DetectError: there is no such normalizer, or the joints that it needs are not there.
        ValueError: a name or a limb is given twice, or a limb has no joints.
    """

    name: ClassVar[str] = "pose"

    def __init__(
        self,
        joint_names: Sequence[str],
        limbs: Sequence[tuple[int, int]],
        normalizer: str = "torso",
    ) -> None:
        if len(set(joint_names)) < len(joint_names) or not joint_names:
            raise ValueError(f"joint_names: expected each name once, found {list(joint_names)}")
        for limb in limbs:
            if not all(0 <= joint < len(joint_names) for joint in limb) or limb[0] == limb[1]:
                raise ValueError(
                    f"limbs: expected two of the joints 0 to {len(joint_names) - 1}, found {limb}"
                )
        if len({frozenset(limb) for limb in limbs}) < len(limbs):
            raise ValueError(f"limbs: expected each pair once, found {list(limbs)}")
        self.joint_names = tuple(joint_names)
        self.limbs = tuple((first, second) for first, second in limbs)
        self.normalizer = _known_normalizer(normalizer)
        self._pairs = _size_pairs(self.joint_names, self.normalizer)
        self._boxes: list[Tensor] = []  # [P, 4] of the persons of each image
        self._labeled: list[Tensor] = []  # [P, K, 3] their joints
        self._found: list[Tensor] = []  # [P, K, 2] the joints found, nan without a detection
        self._num_left_out = 0

    def update(self, detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> None:
        """Add images: one record of detections and one of persons for each, in one frame.

        Args:
            detections: what was found, with joints.
            truths: the persons, with joints, difficult ones included.

        Raises:
            DetectError: detections or persons have no joints, or another number of them.
            ValueError: the sequences differ in length.
        """
        if len(detections) != len(truths):
            raise ValueError(
                f"expected detections and truths of as many images, "
                f"found {len(detections)} and {len(truths)}"
            )
        for found, truth in zip(detections, truths, strict=True):
            self._check_joints("detections", found.joints, len(found))
            self._check_joints("truths", truth.joints, len(truth))
        for found, truth in zip(detections, truths, strict=True):
            self._add(found, truth)

    def compute(self) -> PoseReport:
        """Judge all persons so far. A joint or limb that is never labeled has a share of nan."""
        num_joints = len(self.joint_names)
        boxes = torch.cat([torch.zeros(0, 4), *self._boxes]).double()
        joints = torch.cat([torch.zeros(0, num_joints, 3), *self._labeled]).double()
        found = torch.cat([torch.zeros(0, num_joints, 2), *self._found]).double()
        points, is_labeled = joints[..., :2], joints[..., 2] > 0
        errors = _distances(found, points)  # [P, K]; nan is within no distance
        sizes = _sizes(points, is_labeled, boxes, self._pairs)
        has_size = ~sizes.isnan()
        counted = is_labeled & has_size[:, None]
        limbs_labeled, limbs_correct = _judge_limbs(points, is_labeled, errors, self.limbs)
        return PoseReport(
            joint_names=self.joint_names,
            limbs=self.limbs,
            normalizer=self.normalizer,
            num_labeled=_column_sums(counted),
            num_correct={
                alpha: _column_sums(counted & (errors <= alpha * sizes[:, None]))
                for alpha in ALPHAS
            },
            num_limbs=_column_sums(limbs_labeled),
            num_correct_limbs=_column_sums(limbs_correct),
            num_images=len(self._boxes),
            num_persons=len(boxes),
            num_left_out=self._num_left_out,
            num_without_detection=int(found.isnan().all(dim=2).all(dim=1).sum()),
            num_without_size=int((~has_size).sum()),
        )

    def _check_joints(self, owner: str, joints: Tensor | None, length: int) -> None:
        if length == 0:
            return
        expected = len(self.joint_names)
        if joints is None:
            remedy = (
                "use a detector that predicts joints"
                if owner == "detections"
                else "use a data set with joints, such as COCO's keypoints"
            )
            raise DetectError(f"{owner}: expected {expected} joints, found none; {remedy}")
        if joints.shape[1] != expected:
            raise DetectError(
                f"{owner}: expected {expected} joints ({', '.join(self.joint_names)}), found "
                f"{joints.shape[1]}; the detector and the data set must have the same joints"
            )

    def _add(self, found: Detections, truth: GroundTruth) -> None:
        """Keep the persons of an image who are judged, each with the joints found for them."""
        boxes, num_joints = truth.boxes.cpu(), len(self.joint_names)
        joints = boxes.new_zeros(0, num_joints, 3) if truth.joints is None else truth.joints.cpu()
        judged = ~truth.difficult.cpu() & (joints[..., 2] > 0).any(dim=1)
        # the last row is for persons without a detection
        points = boxes.new_full((len(found) + 1, num_joints, 2), math.nan)
        if found.joints is not None:
            points[:-1] = found.joints.detach().cpu()
        rows = _belonging_detections(boxes, found.boxes.detach().cpu())
        self._boxes.append(boxes[judged])
        self._labeled.append(joints[judged])
        self._found.append(points[rows[judged]])
        self._num_left_out += int((~judged).sum())


def _known_normalizer(name: str) -> Normalizer:
    if name not in get_args(Normalizer):
        raise DetectError(f"normalizer: expected torso, box or head, found {name!r}; choose one")
    return cast(Normalizer, name)


def _size_pairs(joint_names: Sequence[str], normalizer: Normalizer) -> tuple[tuple[int, int], ...]:
    """The joints whose distance is a person's size, in order of preference; none for the box."""
    pairs = _PAIRS.get(normalizer, ())
    known = [pair for pair in pairs if set(pair) <= set(joint_names)]
    if pairs and not known:
        wanted = " or ".join(" and ".join(pair) for pair in pairs)
        raise DetectError(
            f"normalizer {normalizer}: expected joints named {wanted}, "
            f"found {', '.join(joint_names)}; choose the normalizer box"
        )
    return tuple((joint_names.index(first), joint_names.index(second)) for first, second in known)


def _belonging_detections(
    persons: Float[Tensor, "P 4"], found: Float[Tensor, "D 4"]
) -> Int[Tensor, "P"]:
    """For each person of an image the row of the detection that is compared with it, or −1."""
    if len(found) == 0 or len(persons) == 0:
        return torch.full((len(persons),), -1)
    if len(persons) == 1:
        return torch.zeros(1, dtype=torch.int64)
    iou = box_iou(persons.double(), found.double())
    # argmax gives the first of equal ones, the highest-scored
    return torch.where((iou > 0).any(dim=1), iou.argmax(dim=1), -1)


def _distances(
    a: Float[Tensor, "*batch 2"], b: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch"]:
    return (a - b).square().sum(dim=-1).sqrt()


def _sizes(
    points: Float[Tensor, "P K 2"],
    is_labeled: Bool[Tensor, "P K"],
    boxes: Float[Tensor, "P 4"],
    pairs: Sequence[tuple[int, int]],
) -> Float[Tensor, "P"]:
    """The size of each person in pixels, more than 0; nan where it is unknown.

    It is the distance of the first of the `pairs` whose joints are both labeled, and not in one
    place; without pairs, the longer side of the box.
    """
    if not pairs:
        return (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    sizes = points.new_full((len(points),), math.nan)
    for first, second in pairs:
        lengths = _distances(points[:, first], points[:, second])
        usable = is_labeled[:, first] & is_labeled[:, second] & (lengths > 0)
        sizes = torch.where(sizes.isnan() & usable, lengths, sizes)
    return sizes


def _judge_limbs(
    points: Float[Tensor, "P K 2"],
    is_labeled: Bool[Tensor, "P K"],
    errors: Float[Tensor, "P K"],
    limbs: Sequence[tuple[int, int]],
) -> tuple[Bool[Tensor, "P L"], Bool[Tensor, "P L"]]:
    """Which limbs of each person are labeled, and which of these are correct."""
    ends = torch.tensor(limbs, dtype=torch.int64).reshape(-1, 2)  # [L, 2]
    labeled = is_labeled[:, ends].all(dim=2)
    lengths = _distances(points[:, ends[:, 0]], points[:, ends[:, 1]])
    correct = (errors[:, ends] <= LIMB_FRACTION * lengths[:, :, None]).all(dim=2)
    return labeled, labeled & correct


def _column_sums(flags: Bool[Tensor, "P N"]) -> tuple[int, ...]:
    return tuple(flags.sum(dim=0).tolist())
