import io
import json
import math

import pytest
import torch
from rich.console import Console

from detect.errors import DetectError
from detect.evaluation.tasks.pose import ALPHAS, PoseEvaluator, PoseReport
from detect.structures import Detections, GroundTruth
from tests.reference import pose as reference

JOINTS = (
    "left_hip",
    "right_hip",
    "left_shoulder",
    "right_shoulder",
    "neck",
    "head_top",
)
LEFT_HIP, RIGHT_HIP, LEFT_SHOULDER, RIGHT_SHOULDER, NECK, HEAD_TOP = range(6)
LIMBS = ((LEFT_HIP, LEFT_SHOULDER), (RIGHT_HIP, RIGHT_SHOULDER), (NECK, HEAD_TOP))
BOX = (0, 0, 60, 100)
# Seen from the front: the left side is at the greater x. Left hip to right shoulder is 50 long,
# right hip to left shoulder 50, each limb 40, the head 20.
PERSON = ((40, 80), (10, 80), (40, 40), (10, 40), (25, 30), (25, 10))


def truth_of(*persons):
    """Persons `(joints, box, difficult)`; joints are (x, y) or (x, y, visibility)."""
    joints = [[(*point, 2)[:3] for point in person[0]] for person in persons]
    boxes = [person[1] if len(person) > 1 else BOX for person in persons]
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(len(persons), dtype=torch.int64),
        torch.tensor([len(person) > 2 and person[2] for person in persons], dtype=torch.bool),
        torch.tensor(joints).float() if joints else torch.zeros(0, len(JOINTS), 3),
    )


def found_of(*persons):
    """Detections `(joints, box)` by falling score."""
    boxes = [person[1] if len(person) > 1 else BOX for person in persons]
    joints = [person[0] for person in persons]
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(persons), 0, -1).float(),
        torch.zeros(len(persons), dtype=torch.int64),
        torch.tensor(joints).float() if joints else torch.zeros(0, len(JOINTS), 2),
    )


def moved(joint, x, y, person=PERSON):
    """The person with one joint moved."""
    return tuple(
        (point[0] + x, point[1] + y) if number == joint else point
        for number, point in enumerate(person)
    )


def with_visibility(visibility, person=PERSON):
    """The person with the visibility of some joints set."""
    return tuple((*point, visibility.get(number, 2)) for number, point in enumerate(person))


def report_of(*images, normalizer="torso", limbs=LIMBS, joint_names=JOINTS):
    evaluator = PoseEvaluator(joint_names, limbs, normalizer)
    evaluator.update([found for found, _ in images], [truth for _, truth in images])
    return evaluator.compute()


def one(found, truth=(PERSON,), **options):
    return report_of((found_of((found,)), truth_of(truth)), **options)


# ---- by hand ----------------------------------------------------------------------------------


def test_all_right():
    report = one(PERSON)
    assert [report.pck(alpha) for alpha in ALPHAS] == [1, 1, 1, 1]
    assert report.pcp == report.mean_pcp == 1
    assert report.num_labeled == (1,) * 6
    assert (report.num_images, report.num_persons, report.num_left_out) == (1, 1, 0)


@pytest.mark.parametrize(
    ("normalizer", "shift", "expected"),
    [
        # the torso is 50 long: 2.5, 5, 10 and 25 pixels
        ("torso", 2.5, (1, 1, 1, 1)),
        ("torso", 2.75, (5 / 6, 1, 1, 1)),
        ("torso", 5, (5 / 6, 1, 1, 1)),
        ("torso", 5.25, (5 / 6, 5 / 6, 1, 1)),
        ("torso", 10, (5 / 6, 5 / 6, 1, 1)),
        ("torso", 25, (5 / 6, 5 / 6, 5 / 6, 1)),
        ("torso", 25.25, (5 / 6, 5 / 6, 5 / 6, 5 / 6)),
        # the box is 100 high: 5, 10, 20 and 50
        ("box", 5, (1, 1, 1, 1)),
        ("box", 20, (5 / 6, 5 / 6, 1, 1)),
        ("box", 50.5, (5 / 6, 5 / 6, 5 / 6, 5 / 6)),
        # the head is 20 long: 1, 2, 4 and 10
        ("head", 1, (1, 1, 1, 1)),
        ("head", 4, (5 / 6, 5 / 6, 1, 1)),
        ("head", 10, (5 / 6, 5 / 6, 5 / 6, 1)),
        ("head", 10.25, (5 / 6, 5 / 6, 5 / 6, 5 / 6)),
    ],
)
def test_one_joint_off(normalizer, shift, expected):
    report = one(moved(LEFT_SHOULDER, 0, -shift), normalizer=normalizer)
    assert tuple(report.pck(alpha) for alpha in ALPHAS) == expected
    shares = report.joint_pck(0.2)
    assert {name for name, share in shares.items() if share < 1} == (
        {"left_shoulder"} if expected[2] < 1 else set()
    )


def test_the_distance_is_euclidean():
    assert one(moved(NECK, 6, 8)).pck(0.2) == 1  # 10 pixels
    assert one(moved(NECK, 7, 8)).pck(0.2) == 5 / 6


@pytest.mark.parametrize(
    ("shift", "expected"), [(20, (1, 1, 1)), (20.5, (0, 1, 1)), (-20.5, (0, 1, 1))]
)
def test_both_ends_of_a_limb_within_half_its_length(shift, expected):
    for joint in (LEFT_HIP, LEFT_SHOULDER):
        report = one(moved(joint, 0, shift))
        assert tuple(report.limb_pcp.values()) == expected
        assert report.pcp == sum(expected) / 3
    # strict: that the ends are right on the average is not enough
    both = moved(LEFT_SHOULDER, 0, 15, moved(LEFT_HIP, 0, 25))
    assert one(both).limb_pcp["left_hip-left_shoulder"] == 0


def test_hidden_joints_count_and_others_do_not():
    truth = (with_visibility({NECK: 1, HEAD_TOP: 0}),)
    report = one(moved(HEAD_TOP, 50, 0), truth)
    assert report.num_labeled == (1, 1, 1, 1, 1, 0)
    assert report.pck(0.2) == report.mean_pck(0.2) == 1
    assert math.isnan(report.joint_pck(0.2)["head_top"])
    assert report.num_limbs == (1, 1, 0)
    assert math.isnan(report.limb_pcp["neck-head_top"])
    assert report.mean_pcp == 1
    assert one(moved(NECK, 50, 0), truth).pck(0.2) == 4 / 5


def test_share_and_mean_differ():
    """The neck is labeled twice and found once, the others are labeled and found once."""
    only_neck = with_visibility({joint: 0 for joint in range(6) if joint != NECK})
    report = report_of(
        (found_of((PERSON,)), truth_of((PERSON,))),
        (found_of((moved(NECK, 50, 50),)), truth_of((only_neck,))),
        normalizer="box",
    )
    assert report.pck(0.2) == 6 / 7
    assert report.mean_pck(0.2) == (5 + 1 / 2) / 6


def test_the_other_diagonal_of_the_torso():
    # right hip to left shoulder is 30 and 40 → 50; now 90 long
    person = moved(RIGHT_HIP, 30, 50)
    truth = with_visibility({RIGHT_SHOULDER: 0}, person)
    report = one(moved(NECK, 0, 18, person), (truth,))  # within 0.2 of 90 but not of 50
    assert report.joint_pck(0.2)["neck"] == 1
    assert report.joint_pck(0.1)["neck"] == 0
    # where both are labeled, left hip to right shoulder counts
    assert one(moved(NECK, 0, 18, person), (person,)).joint_pck(0.2)["neck"] == 0
    # a diagonal without length is none
    flat = moved(RIGHT_SHOULDER, 30, 40, person)
    assert one(moved(NECK, 0, 18, flat), (flat,)).joint_pck(0.2)["neck"] == 1


@pytest.mark.parametrize(
    ("normalizer", "hidden"),
    [
        ("torso", [LEFT_HIP, LEFT_SHOULDER]),
        ("torso", [RIGHT_SHOULDER, RIGHT_HIP]),
        ("head", [NECK]),
        ("head", [HEAD_TOP]),
    ],
)
def test_persons_without_a_size_count_for_pcp_only(normalizer, hidden):
    truth = (with_visibility(dict.fromkeys(hidden, 0)),)
    report = one(PERSON, truth, normalizer=normalizer)
    assert (report.num_persons, report.num_without_size) == (1, 1)
    assert report.num_labeled == (0,) * 6
    assert math.isnan(report.pck(0.5))
    assert math.isnan(report.mean_pck(0.5))
    assert report.pcp == 1
    assert one(PERSON, truth, normalizer="box").pck(0.5) == 1


def test_the_head_without_length():
    report = one(PERSON, (moved(HEAD_TOP, 0, 20),), normalizer="head")
    assert report.num_without_size == 1


# ---- which detection belongs to which person --------------------------------------------------

LEFT_BOX, RIGHT_BOX = (0, 0, 60, 100), (200, 0, 260, 100)
RIGHT_PERSON = tuple((x + 200, y) for x, y in PERSON)
WRONG = tuple((x + 50, y + 500) for x, y in PERSON)


def test_alone_in_the_image_the_first_detection_counts():
    truth = truth_of((PERSON, LEFT_BOX))
    # whatever the boxes are
    report = report_of((found_of((PERSON, RIGHT_BOX), (WRONG, LEFT_BOX)), truth))
    assert report.pck(0.05) == 1
    report = report_of((found_of((WRONG, RIGHT_BOX), (PERSON, LEFT_BOX)), truth))
    assert report.pck(0.05) == 0
    assert report.num_without_detection == 0


def test_among_others_the_best_overlap_counts():
    truth = truth_of((PERSON, LEFT_BOX), (RIGHT_PERSON, RIGHT_BOX))
    near = (0, 0, 60, 90)
    found = found_of((RIGHT_PERSON, RIGHT_BOX), (WRONG, near), (PERSON, LEFT_BOX))
    assert report_of((found, truth)).pck(0.05) == 1
    # equal overlap: the highest-scored
    found = found_of((WRONG, LEFT_BOX), (RIGHT_PERSON, RIGHT_BOX), (PERSON, LEFT_BOX))
    assert report_of((found, truth)).pck(0.05) == 1 / 2
    # nothing touches the right one
    report = report_of((found_of((PERSON, LEFT_BOX), (RIGHT_PERSON, LEFT_BOX)), truth))
    assert report.pck(0.5) == 1 / 2
    assert report.num_without_detection == 1


def test_difficult_persons_are_left_out_but_are_there():
    truth = truth_of((PERSON, LEFT_BOX, True), (RIGHT_PERSON, RIGHT_BOX))
    found = found_of((WRONG, LEFT_BOX), (RIGHT_PERSON, RIGHT_BOX))
    report = report_of((found, truth))
    assert report.pck(0.05) == 1
    assert (report.num_persons, report.num_left_out) == (1, 1)


def test_persons_without_a_labeled_joint_are_left_out():
    nothing = with_visibility(dict.fromkeys(range(6), 0))
    report = report_of((found_of((PERSON,)), truth_of((nothing,))))
    assert (report.num_persons, report.num_left_out, report.num_images) == (0, 1, 1)
    assert math.isnan(report.pck(0.2))
    assert math.isnan(report.pcp)


@pytest.mark.parametrize("found", [Detections.empty(), found_of()])
def test_without_a_detection_nothing_is_right(found):
    report = report_of((found, truth_of((PERSON,))))
    assert report.pck(0.5) == report.mean_pck(0.5) == report.pcp == 0
    assert report.num_labeled == (1,) * 6
    assert (report.num_persons, report.num_without_detection) == (1, 1)


@pytest.mark.parametrize(
    "images", [[], [(found_of((PERSON,)), GroundTruth.empty())], [(found_of(), truth_of())]]
)
def test_without_persons(images):
    report = report_of(*images)
    assert report.num_images == len(images)
    assert report.num_persons == 0
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["pck"] == {"0.05": None, "0.1": None, "0.2": None, "0.5": None}
    assert content["pcp"] is content["mean_pcp"] is content["mean_pck"]["0.2"] is None
    assert "0 persons" in printed(report)


# ---- against the oracle -----------------------------------------------------------------------


def random_images(seed, num_images=150):
    """Whole numbers on a coarse grid: equal overlaps, and distances of exactly a threshold."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    def boxes(count):
        corners = integers(0, 6, count, 2)
        return torch.cat((corners, corners + integers(1, 5, count, 2)), dim=1).float() * 20

    detections, truths = [], []
    for _ in range(num_images):
        num_persons, num_found = int(integers(0, 4, 1)), int(integers(0, 6, 1))
        person_boxes = boxes(num_persons)
        points = integers(0, 9, num_persons, 6, 2).float() * 10
        visibility = integers(0, 3, num_persons, 6, 1).float()
        visibility[integers(0, 6, num_persons) == 0] = 0
        difficult = integers(0, 5, num_persons) == 0
        truths.append(
            GroundTruth(
                person_boxes,
                torch.zeros(num_persons, dtype=torch.int64),
                difficult,
                torch.cat((points, visibility), dim=2),
            )
        )
        found, joints = boxes(num_found), integers(0, 9, num_found, 6, 2).float() * 10
        for row in range(min(num_found, num_persons)):
            found[row] = person_boxes[row]
            joints[row] = points[row] + integers(-2, 3, 6, 2) * 5
        labels = torch.zeros(num_found, dtype=torch.int64)
        scores = torch.rand(num_found, generator=generator)
        detections.append(Detections.sorted(found, scores, labels, joints))
    return detections, truths


@pytest.mark.parametrize("normalizer", ["torso", "box", "head"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_oracle(seed, normalizer):
    detections, truths = random_images(seed)
    evaluator = PoseEvaluator(JOINTS, LIMBS, normalizer)
    for rows in (slice(0, 1), slice(1, 30), slice(30, 150)):
        evaluator.update(detections[rows], truths[rows])
    report = evaluator.compute()
    images = [
        (
            list(zip(found.boxes.tolist(), found.joints.tolist(), strict=True)),
            list(
                zip(
                    truth.boxes.tolist(),
                    truth.joints.tolist(),
                    truth.difficult.tolist(),
                    strict=True,
                )
            ),
        )
        for found, truth in zip(detections, truths, strict=True)
    ]
    expected = reference.evaluate(images, JOINTS, LIMBS, normalizer, ALPHAS)
    assert {name: getattr(report, name) for name in expected} == expected
    # the case is worth something
    assert 0 < report.pck(0.05) < report.pck(0.5) < 1
    assert 0 < report.pcp < 1
    assert report.num_left_out
    assert report.num_without_detection
    assert (report.num_without_size > 0) == (normalizer != "box")
    assert evaluator.compute().as_dict() == report.as_dict()  # computing leaves the images


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_records_on_the_gpu():
    detections, truths = random_images(0)
    device = torch.device("cuda")
    moved_images = zip(
        (found.to(device) for found in detections),
        (truth.to(device) for truth in truths),
        strict=True,
    )
    expected = report_of(*zip(detections, truths, strict=True)).as_dict()
    assert report_of(*moved_images).as_dict() == expected


def test_gradients_stay_out():
    found = found_of((PERSON,))
    joints = found.joints.clone().requires_grad_()
    found = Detections(found.boxes, found.scores, found.labels, joints)
    evaluator = PoseEvaluator(JOINTS, LIMBS)
    evaluator.update([found], [truth_of((PERSON,))])
    assert evaluator.compute().pck(0.2) == 1
    # the network's graph would stay in memory until the last image
    assert not any(joints.requires_grad for joints in evaluator._found)


# ---- faults of the caller ---------------------------------------------------------------------


def test_joints_are_missing():
    bare = Detections(torch.tensor([[0.0, 0, 9, 9]]), torch.ones(1), torch.tensor([0]))
    with pytest.raises(DetectError, match="detections: expected 6 joints, found none; use a det"):
        report_of((bare, truth_of((PERSON,))))
    truth = GroundTruth(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), torch.tensor([False]))
    with pytest.raises(DetectError, match="truths: expected 6 joints, found none; use a data set"):
        report_of((found_of((PERSON,)), truth))


def test_another_number_of_joints():
    with pytest.raises(DetectError, match=r"truths: expected 6 joints \(left_hip, .*found 4"):
        report_of((found_of((PERSON,)), truth_of((PERSON[:4],))))
    with pytest.raises(DetectError, match=r"detections: expected 6 joints .*found 4"):
        report_of((found_of((PERSON[:4],)), truth_of((PERSON,))))


def test_a_refused_update_leaves_nothing():
    evaluator = PoseEvaluator(JOINTS, LIMBS)
    good, bad = truth_of((PERSON,)), truth_of((PERSON[:4],))
    with pytest.raises(DetectError):
        evaluator.update([found_of((PERSON,))] * 2, [good, bad])
    with pytest.raises(ValueError, match="as many images, found 1 and 2"):
        evaluator.update([found_of((PERSON,))], [good, good])
    assert evaluator.compute().num_images == 0


def test_normalizers_that_cannot_be():
    with pytest.raises(DetectError, match="expected torso, box or head, found 'arm'"):
        PoseEvaluator(JOINTS, LIMBS, "arm")
    with pytest.raises(DetectError, match="head: expected joints named neck and head_top, found"):
        PoseEvaluator(JOINTS[:4], LIMBS[:2], "head")
    with pytest.raises(DetectError, match="left_hip and right_shoulder or right_hip and left_sh"):
        PoseEvaluator(JOINTS[3:], (), "torso")
    # one diagonal is enough
    names = ("right_hip", "left_shoulder")
    report = report_of(
        (found_of((((10, 80), (40, 50)),)), truth_of((((10, 80), (40, 40)),))),
        joint_names=names,
        limbs=(),
    )
    assert (report.pck(0.1), report.pck(0.2)) == (1 / 2, 1)  # 10 of 50 pixels
    assert math.isnan(report.pcp)


@pytest.mark.parametrize(
    ("names", "limbs", "message"),
    [
        ((), (), "joint_names"),
        (("neck", "neck"), (), "joint_names: expected each name once"),
        (("neck", "hip"), ((0, 2),), "two of the joints 0 to 1"),
        (("neck", "hip"), ((-1, 0),), "two of the joints 0 to 1"),
        (("neck", "hip"), ((1, 1),), "two of the joints 0 to 1"),
        (("neck", "hip"), ((0, 1), (1, 0)), "each pair once"),
    ],
)
def test_skeletons_that_make_no_sense(names, limbs, message):
    with pytest.raises(ValueError, match=message):
        PoseEvaluator(names, limbs, "box")


def test_an_alpha_that_was_not_measured():
    with pytest.raises(ValueError, match=r"expected one of 0\.05, 0\.1, 0\.2, 0\.5, found 0\.3"):
        one(PERSON).pck(0.3)


# ---- the report -------------------------------------------------------------------------------


def printed(report, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_the_keys_of_the_json_are_stable():
    report = one(moved(NECK, 0, 8), (with_visibility({LEFT_HIP: 0}),))
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert list(content) == [
        "protocol",
        "pck",
        "mean_pck",
        "pcp",
        "mean_pcp",
        "num_images",
        "num_persons",
        "num_left_out",
        "num_without_detection",
        "num_without_size",
        "joints",
        "limbs",
    ]
    assert content["protocol"]["normalizer"] == "torso"
    assert content["protocol"]["alphas"] == list(ALPHAS)
    assert content["pck"] == {"0.05": 4 / 5, "0.1": 4 / 5, "0.2": 1.0, "0.5": 1.0}
    assert content["mean_pck"] == content["pck"]
    assert list(content["joints"]) == list(JOINTS)
    nothing = dict.fromkeys(content["pck"])
    assert content["joints"]["left_hip"] == {"pck": nothing, "num_labeled": 0}
    neck = {"0.05": 0.0, "0.1": 0.0, "0.2": 1.0, "0.5": 1.0}
    assert content["joints"]["neck"] == {"pck": neck, "num_labeled": 1}
    assert content["limbs"] == {
        "left_hip-left_shoulder": {"pcp": None, "num_labeled": 0},
        "right_hip-right_shoulder": {"pcp": 1.0, "num_labeled": 1},
        "neck-head_top": {"pcp": 1.0, "num_labeled": 1},
    }
    assert content["pcp"] == content["mean_pcp"] == 1


def made_report(normalizer="torso", names=("hip", "neck", "top")):
    return PoseReport(
        joint_names=names,
        limbs=((0, 1), (1, 2)),
        normalizer=normalizer,
        num_labeled=(4, 8, 0),
        num_correct={0.1: (1, 4, 0), 0.5: (3, 8, 0)},
        num_limbs=(5, 0),
        num_correct_limbs=(2, 0),
        num_images=9,
        num_persons=10,
        num_left_out=6,
        num_without_detection=2,
        num_without_size=1,
    )


def test_the_table_says_all_numbers():
    report = made_report()
    lines = [line.split() for line in printed(report).splitlines() if line.strip()]
    rows = {line[0]: line[1:] for line in lines}
    assert rows["hip"] == ["4", "0.2500", "0.7500"]
    assert rows["neck"] == ["8", "0.5000", "1.0000"]
    assert rows["top"] == ["0", "—", "—"]
    assert rows["hip-neck"] == ["5", "0.4000"]
    assert rows["neck-top"] == ["0", "—"]
    assert rows["mean"] == ["0.3750", "0.8750", "0.4000"]
    words = " ".join(printed(report).split())
    assert "PCK@0.1 0.4167, PCK@0.5 0.9167 of 12 labeled joints" in words
    assert "PCP 0.4000 of 5 labeled limbs" in words
    assert "10 persons in 9 images: 2 without a detection, 1 without a size, left out" in words
    assert "out of PCK. The size" in words
    assert "distance of left hip and right shoulder" in words
    assert "strict PCP" in words
    assert "left out (6 here)" in words
    assert "PCKh" not in words
    assert "PCKh@0.5" in " ".join(printed(made_report("head")).split())
    assert "longer side" in " ".join(printed(made_report("box")).split())


def test_the_table_fits_a_narrow_terminal_and_takes_names_literally():
    text = printed(made_report(names=("[b]hip[/b]", "a very long name of a joint", "[/]")))
    assert max(map(len, text.splitlines())) <= 80
    assert "[b]hip" in text
    text = printed(one(PERSON))
    assert max(map(len, text.splitlines())) <= 80
    assert "right_hip-right_shoulder" in "".join(text.split())
