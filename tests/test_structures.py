import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from detect.structures import (
    Batch,
    Detections,
    GroundTruth,
    ImageMeta,
    InputSpec,
    Sample,
    StructureError,
    whole_image_truth,
)

BOXES = torch.tensor([[0.0, 0, 10, 20], [5, 5, 8, 9]])
JOINTS = torch.tensor(
    [[[1.0, 2, 2], [3, 4, 1], [0, 0, 0]], [[5, 6, 2], [50, 39, 2], [-7, 60, 1]]]
)  # [2, 3, 3]

FOUR = torch.tensor([[0.0, 0, 4, 4]] * 4)
THIRD_IS_EMPTY = torch.tensor([[0.0, 0, 4, 4], [1, 1, 2, 2], [3, 0, 3, 0], [3, 0, 3, 0]])


def truth(boxes=BOXES, labels=(0, 1), difficult=(False, True), joints=None):
    return GroundTruth(
        boxes,
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
        joints,
    )


def detections(boxes=BOXES, scores=(0.9, 0.8), labels=(0, 1), joints=None):
    return Detections(
        boxes,
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        joints,
    )


def with_value(joints, place, value):
    changed = joints.clone()
    changed[place] = value
    return changed


def meta(**changes):
    fields = {"image_id": "000001", "path": None, "original_size": (40, 60), "input_size": (40, 60)}
    return ImageMeta(**{**fields, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputSpec((0, 5)), r"InputSpec.size: expected positive pixels, found \(0, 5\)"),
        (lambda: meta(original_size=(0, 1)), "ImageMeta.original_size of 000001: expected a pos"),
        (lambda: meta(input_size=(3, -1)), "ImageMeta.input_size of 000001: expected a positive"),
        (lambda: meta(scale=(1.0, 0.0)), "ImageMeta.scale of 000001: expected positive factors"),
        (lambda: truth(BOXES.double()), r"GroundTruth.boxes: expected float32 \[N, 4\], found"),
        (lambda: truth(BOXES * float("nan")), "GroundTruth.boxes: expected finite pixels"),
        (lambda: truth(BOXES[:, [2, 1, 0, 3]]), r"GroundTruth.boxes: expected x1 < x2 .* row 0"),
        (lambda: truth(BOXES[:, [0, 1, 2, 1]]), "GroundTruth.boxes: expected x1 < x2 and y1 < y2"),
        (lambda: truth(labels=(0, -1)), "GroundTruth.labels: expected 0 or more, found -1"),
        (lambda: detections(BOXES.half()), r"Detections.boxes: expected float32 \[N, 4\], found"),
        (lambda: detections(BOXES / 0), r"Detections.boxes: expected finite pixels.* in row 0"),
        (
            lambda: detections(scores=(1, float("nan"))),
            "Detections.scores: expected finite .*row 1",
        ),
        (
            lambda: detections(scores=(float("inf"), 0)),
            "Detections.scores: expected finite .*row 0",
        ),
        (lambda: detections(scores=(0.1, 0.2)), r"Detections.scores: expected falling .* in row 1"),
        (lambda: detections(labels=(0, -2)), "Detections.labels: expected 0 or more, found -2"),
        (lambda: truth(joints=JOINTS.double()), r"GroundTruth.joints: expected float32 \[2, K, 3"),
        (
            lambda: truth(joints=with_value(JOINTS, (1, 2, 0), float("inf"))),
            "GroundTruth.joints: expected finite numbers.* in row 1, joint 2",
        ),
        (
            lambda: truth(joints=with_value(JOINTS, (0, 1, 2), 0.5)),
            "GroundTruth.joints: expected a visibility of 0, 1 or 2, found 0.5 in row 0, joint 1",
        ),
        (
            lambda: detections(joints=with_value(JOINTS[..., :2], (0, 2, 1), float("nan"))),
            "Detections.joints: expected finite numbers.* in row 0, joint 2",
        ),
    ],
)
def test_a_faulty_value_is_named(make, message):
    with pytest.raises(StructureError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: truth(labels=(0,)),
        lambda: truth(difficult=(True, False, True)),
        lambda: detections(scores=(0.9,)),
        lambda: detections(BOXES[:, :3]),
        lambda: Detections(BOXES, torch.ones(2), torch.ones(2, dtype=torch.bool)),
        lambda: truth(joints=JOINTS[:1]),
        lambda: truth(joints=JOINTS[..., :2]),
        lambda: detections(joints=JOINTS),
        lambda: detections(joints=JOINTS[:1, :, :2]),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(make):
    # the shape checks of the tests may speak before the record itself
    with pytest.raises((StructureError, TypeCheckError)):
        make()


def unchecked(record, **fields):
    """A record with other fields, which only its own check has seen, not that of the types."""
    changed = object.__new__(type(record))
    for field in dataclasses.fields(record):
        object.__setattr__(changed, field.name, fields.get(field.name, getattr(record, field.name)))
    return changed


@pytest.mark.parametrize(
    ("make", "name", "found"),
    [
        (lambda: unchecked(truth(), boxes=BOXES.double()), "boxes", "torch.float64 [2, 4]"),
        (lambda: unchecked(truth(), boxes=BOXES[0]), "boxes", "torch.float32 [4]"),
        (lambda: unchecked(truth(), boxes=BOXES[:, :3]), "boxes", "torch.float32 [2, 3]"),
        (lambda: unchecked(truth(), labels=torch.ones(2)), "labels", "torch.float32 [2]"),
        (lambda: unchecked(truth(), labels=torch.tensor([1])), "labels", "torch.int64 [1]"),
        (lambda: unchecked(truth(), difficult=torch.ones(2)), "difficult", "torch.float32 [2]"),
        (lambda: unchecked(truth(), joints=JOINTS.double()), "joints", "torch.float64 [2, 3, 3]"),
        (lambda: unchecked(truth(), joints=JOINTS[0]), "joints", "torch.float32 [3, 3]"),
        (lambda: unchecked(truth(), joints=JOINTS[:1]), "joints", "torch.float32 [1, 3, 3]"),
        (lambda: unchecked(truth(), joints=JOINTS[..., 1:]), "joints", "torch.float32 [2, 3, 2]"),
        (lambda: unchecked(detections(), boxes=BOXES.half()), "boxes", "torch.float16 [2, 4]"),
        (lambda: unchecked(detections(), scores=BOXES), "scores", "torch.float32 [2, 4]"),
        (
            lambda: unchecked(detections(), scores=torch.ones(2).double()),
            "scores",
            "torch.float64 [2]",
        ),
        (lambda: unchecked(detections(), labels=torch.ones(2)), "labels", "torch.float32 [2]"),
        (lambda: unchecked(detections(), joints=JOINTS), "joints", "torch.float32 [2, 3, 3]"),
        (
            lambda: unchecked(sample(4, 5, 0), image=np.zeros((4, 5, 3))),
            "image of 000001",
            "float64 [4, 5, 3]",
        ),
        (
            lambda: unchecked(sample(4, 5, 0), image=np.zeros((4, 5, 4), np.uint8)),
            "image of 000001",
            "uint8 [4, 5, 4]",
        ),
        (
            lambda: unchecked(sample(4, 5, 0), image=np.zeros((4, 5), np.uint8)),
            "image of 000001",
            "uint8 [4, 5]",
        ),
        (lambda: unchecked(sample(4, 5, 0), proposals=BOXES[0]), "proposals", "torch.float32 [4]"),
        (
            lambda: unchecked(some_batch(), images=torch.zeros(3, 3, 4, 5)),
            "images",
            "torch.float32 [3, 3, 4, 5]",
        ),
        (
            lambda: unchecked(some_batch(), images=some_batch().images[0]),
            "images",
            "torch.uint8 [3, 6, 7]",
        ),
        (
            lambda: unchecked(some_batch(), images=some_batch().images[:, :2]),
            "images",
            "torch.uint8 [3, 2, 6, 7]",
        ),
        (
            lambda: unchecked(some_batch(), proposals=(BOXES, BOXES, BOXES[0])),
            "proposals",
            "torch.float32 [4]",
        ),
    ],
)
def test_each_record_checks_types_and_shapes_itself(make, name, found):
    record = make()
    with pytest.raises(StructureError) as caught:
        record.__post_init__()
    message = str(caught.value)
    assert message.startswith(f"{type(record).__name__}.{name}: expected ")
    assert message.endswith(f"found {found}")


@pytest.mark.parametrize(
    ("make", "row"),
    [
        (lambda: truth(BOXES[[0, 1, 1]][:, [0, 1, 0, 3]], (0, 1, 2), (False,) * 3), 0),
        (lambda: truth(THIRD_IS_EMPTY, (0,) * 4, (False,) * 4), 2),
        (lambda: detections(THIRD_IS_EMPTY / THIRD_IS_EMPTY[:, 3:], (1.0,) * 4, (0,) * 4), 2),
        (lambda: detections(FOUR, (0.9, 0.1, 0.2, 0.3), (0,) * 4), 2),
        (lambda: detections(FOUR, (0.9, math.nan, math.inf, 0.1), (0,) * 4), 1),
    ],
)
def test_the_first_faulty_row_is_named(make, row):
    with pytest.raises(StructureError, match=rf"in row {row}\b"):
        make()


def test_equal_scores_and_empty_records_are_legal():
    assert len(detections(scores=(0.5, 0.5))) == 2
    assert len(Detections.empty()) == 0
    assert len(GroundTruth.empty()) == 0
    assert GroundTruth.empty().without_difficult().boxes.shape == (0, 4)


def test_truth_without_difficult():
    kept = truth().without_difficult()
    assert kept.boxes.tolist() == BOXES[:1].tolist()
    assert kept.labels.tolist() == [0]
    assert kept.difficult.tolist() == [False]


def test_joints_go_with_their_objects():
    device = torch.device("cpu")
    given = truth(difficult=(True, False), joints=JOINTS)
    assert torch.equal(given.without_difficult().joints, JOINTS[1:])
    assert torch.equal(given.to(device).joints, JOINTS)
    found = detections(joints=JOINTS[..., :2])
    assert torch.equal(found.with_score_at_least(0.85).joints, JOINTS[:1, :, :2])
    assert torch.equal(found.to(device).joints, JOINTS[..., :2])
    labels = torch.tensor([0, 1])
    turned = Detections.sorted(BOXES, torch.tensor([0.1, 0.2]), labels, JOINTS[..., :2].double())
    assert torch.equal(turned.joints, JOINTS[[1, 0], :, :2])
    assert turned.joints.dtype == torch.float32


def test_without_joints_there_are_none():
    device = torch.device("cpu")
    given, found = truth(), detections()
    for record in (
        GroundTruth.empty(),
        Detections.empty(),
        given.without_difficult(),
        given.to(device),
        pickle.loads(pickle.dumps(given)),
        found.with_score_at_least(0.5),
        found.to(device),
        found.restored(meta()),
        Detections.sorted(found.boxes, found.scores, found.labels),
    ):
        assert record.joints is None


def test_sorting_is_stable_and_makes_float32():
    boxes = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    scores = torch.tensor([0.5, 0.9, 0.5, 0.9], dtype=torch.float16)
    result = Detections.sorted(boxes, scores, torch.tensor([0, 1, 2, 3]))
    assert result.labels.tolist() == [1, 3, 0, 2]
    assert result.boxes[:, 0].tolist() == [4, 12, 0, 8]
    assert result.scores.dtype == result.boxes.dtype == torch.float32


def test_score_threshold_is_inclusive():
    assert len(detections(scores=(0.75, 0.5)).with_score_at_least(0.5)) == 2
    assert detections(scores=(0.75, 0.5)).with_score_at_least(0.6).labels.tolist() == [0]


def test_input_frame_of_a_letterboxed_image():
    letterboxed = meta(scale=(2.0, 3.0), offset=(7.0, 11.0))
    boxes = torch.tensor([[1.0, 2, 10, 20]])
    assert letterboxed.to_input(boxes).tolist() == [[14, 11, 41, 47]]


def test_an_image_is_mirrored_before_it_is_scaled():
    mirrored = meta(scale=(1.0, 2.0), offset=(0.0, 5.0), flipped=True)
    assert mirrored.to_input(torch.tensor([[1.0, 2, 10, 20]])).tolist() == [[105, 2, 123, 20]]


def test_points_in_the_input_frame():
    points = torch.tensor([[[1.0, 2]], [[10, 20]]])
    letterboxed = meta(scale=(2.0, 3.0), offset=(7.0, 11.0))
    assert letterboxed.points_to_input(points).tolist() == [[[14, 11]], [[41, 47]]]
    mirrored = meta(scale=(1.0, 2.0), offset=(0.0, 5.0), flipped=True)
    assert mirrored.points_to_input(points).tolist() == [[[123, 2]], [[105, 20]]]


factors = st.floats(0.1, 10)
offsets = st.floats(-100, 100)


@settings(derandomize=True, deadline=None)
@given(
    st.tuples(factors, factors), st.tuples(offsets, offsets), st.booleans(), st.integers(0, 10**6)
)
def test_the_way_back_inverts_the_way_in(scale, offset, flipped, seed):
    corners = torch.rand(8, 2, generator=torch.Generator().manual_seed(seed)) * 30
    boxes = torch.cat((corners, corners + 1), dim=1)
    there = meta(scale=scale, offset=offset, flipped=flipped)
    # an offset of 100 over a scale of 0.1 costs 10 bits of the 24 of float32
    assert_close(there.to_original(there.to_input(boxes)), boxes, atol=1e-3, rtol=0)
    assert_close(there.to_input(there.to_original(boxes)), boxes, atol=1e-3, rtol=0)
    points = corners.reshape(2, 4, 2)
    assert_close(there.points_to_original(there.points_to_input(points)), points, atol=1e-3, rtol=0)
    # the center of a box is a point of it
    centers = there.points_to_input((boxes[:, :2] + boxes[:, 2:]) / 2)
    there_boxes = there.to_input(boxes)
    assert_close(centers, (there_boxes[:, :2] + there_boxes[:, 2:]) / 2, atol=1e-3, rtol=0)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 4000), st.lists(st.integers(0, 4000), min_size=4, max_size=4))
def test_flipping_twice_is_nothing(width, corners):
    boxes = torch.tensor([corners], dtype=torch.float32)
    mirrored = meta(original_size=(10, width), flipped=True)
    assert mirrored.to_input(mirrored.to_input(boxes)).tolist() == boxes.tolist()
    once = mirrored.to_input(boxes)
    assert once[0, 0] == width - boxes[0, 2]


def test_restored_detections_are_clipped_and_those_outside_left_out():
    letterboxed = meta(scale=(2.0, 2.0), offset=(10.0, 0.0), input_size=(100, 120))
    found = detections(
        torch.tensor([[20.0, 30, 60, 70], [100, 80, 140, 120], [0, 0, 50, 10], [9, 9, 9, 50]]),
        scores=(0.9, 0.8, 0.7, 0.6),
        labels=(0, 1, 2, 3),
    )
    restored = found.restored(letterboxed)
    assert restored.boxes.tolist() == [[10, 10, 30, 30], [50, 35, 60, 40]]
    assert restored.labels.tolist() == [0, 1]
    assert_close(restored.scores, torch.tensor([0.9, 0.8]))


def test_restored_joints_go_with_their_boxes_and_are_not_clipped():
    letterboxed = meta(scale=(2.0, 4.0), offset=(10.0, 20.0), input_size=(100, 280))
    found = detections(
        torch.tensor([[0.0, 0, 15, 5], [40, 30, 80, 70]]),  # the first lies in the padding
        joints=torch.tensor([[[1.0, 1]], [[0, 110]]]),
    )
    restored = found.restored(letterboxed)
    assert restored.labels.tolist() == [1]
    assert restored.joints.tolist() == [[[-5, 50]]]


def sample(height, width, value, proposals=None, **changes):
    image = np.full((height, width, 3), value, dtype=np.uint8)
    fields = {"original_size": (height, width), "input_size": (height, width), **changes}
    return Sample(image, GroundTruth.empty(), meta(**fields), proposals)


def some_batch(count=3, *, with_proposals=False):
    """Images, truths and proposals of which each has the image's number in it."""
    return Batch(
        torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 6, 7),
        tuple(truth(labels=(number, 9)) for number in range(count)),
        tuple(meta(image_id=str(number)) for number in range(count)),
        tuple(BOXES + number for number in range(count)) if with_proposals else None,
    )


def numbers_in(batch):
    """What is in each column of `some_batch`; all columns are to say the same."""
    columns = [
        batch.images[:, 0, 0, 0].tolist(),
        [int(entry.labels[0]) for entry in batch.truths],
        [int(entry.image_id) for entry in batch.metas],
    ]
    if batch.proposals is not None:
        columns.append([int(boxes[0, 0]) for boxes in batch.proposals])
    assert all(column == columns[0] for column in columns)
    return columns[0]


@pytest.mark.parametrize("with_proposals", [False, True])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, [[0, 1, 2, 3, 4]]),
        (2, [[0, 1], [2, 3, 4]]),
        (3, [[0], [1, 2], [3, 4]]),
        (5, [[0], [1], [2], [3], [4]]),
        (7, [[0], [1], [2], [3], [4]]),
    ],
)
def test_the_parts_of_a_batch(number, expected, with_proposals):
    batch = some_batch(5, with_proposals=with_proposals)
    parts = batch.parts(number)
    assert [numbers_in(part) for part in parts] == expected
    assert all((part.proposals is not None) == with_proposals for part in parts)
    assert (parts[0] is batch) == (number == 1)


@pytest.mark.parametrize("with_proposals", [False, True])
def test_a_batch_survives_pickling_and_moving(with_proposals):
    batch = some_batch(with_proposals=with_proposals)
    for again in (pickle.loads(pickle.dumps(batch)), batch.to(torch.device("cpu"))):
        assert torch.equal(again.images, batch.images)
        assert numbers_in(again) == [0, 1, 2]
        assert (again.proposals is not None) == with_proposals
        assert again.metas == batch.metas
        for boxes, others in zip(again.proposals or (), batch.proposals or (), strict=True):
            assert torch.equal(boxes, others)


def test_proposals_are_those_of_all_samples_or_of_none():
    both = Batch.from_samples([sample(4, 5, 0, BOXES), sample(4, 5, 0, BOXES + 1)])
    assert [boxes.tolist() for boxes in both.proposals] == [BOXES.tolist(), (BOXES + 1).tolist()]
    assert Batch.from_samples([sample(4, 5, 0), sample(4, 5, 0)]).proposals is None
    with pytest.raises(StructureError, match=r"all 3 samples .* those of 1"):
        Batch.from_samples([sample(4, 5, 0), sample(4, 5, 0, BOXES), sample(4, 5, 0)])
    with pytest.raises(StructureError, match=r"Batch.proposals: .* the 2 images, found 1"):
        dataclasses.replace(both, proposals=both.proposals[:1])


def test_one_object_fills_an_image():
    whole = whole_image_truth((30, 50), 4)
    assert whole.boxes.tolist() == [[0, 0, 50, 30]]
    assert whole.labels.tolist() == [4]
    assert whole.difficult.tolist() == [False]


@pytest.mark.parametrize("shorter_side", [0, 9])
def test_a_shorter_side_is_at_most_the_longer_one(shorter_side):
    with pytest.raises(StructureError, match=rf"at most the 8 pixels .* found {shorter_side}"):
        InputSpec((6, 8), shorter_side=shorter_side)


def test_the_least_values_are_legal():
    assert InputSpec((1, 1), shorter_side=1).keep_aspect_ratio is False
    assert InputSpec((6, 8), shorter_side=8).shorter_side == 8
    entry = ImageMeta("a", None, (1, 1), (1, 1))
    assert (entry.scale, entry.offset, entry.flipped) == ((1, 1), (0, 0), False)


def test_a_batch_pads_below_and_to_the_right():
    batch = Batch.from_samples([sample(2, 5, 7), sample(4, 3, 9)])
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.images.dtype == torch.uint8
    assert (batch.images[0, :, :2] == 7).all()
    assert (batch.images[1, :, :, :3] == 9).all()
    assert int(batch.images[0].sum()) == 2 * 5 * 3 * 7  # the rest is 0
    assert int(batch.images[1].sum()) == 4 * 3 * 3 * 9
    assert [entry.input_size for entry in batch.metas] == [(2, 5), (4, 3)]
    assert len(batch) == 2


def test_a_batch_keeps_channels_and_rows_apart():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    entry = meta(original_size=(2, 3), input_size=(2, 3))
    batch = Batch.from_samples([Sample(image, GroundTruth.empty(), entry)])
    assert batch.images[0].permute(1, 2, 0).tolist() == image.tolist()


def test_unit_images_go_from_0_to_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    batch = Batch(images, (GroundTruth.empty(),), (meta(),))
    assert_close(batch.unit_images().flatten(), torch.tensor([0.0, 0.2, 1.0]))


def test_a_batch_takes_images_that_are_views():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1]  # mirrored without a copy
    entry = meta(original_size=(2, 4), input_size=(2, 4), path=Path("a.jpg"))
    batch = Batch.from_samples([Sample(image, GroundTruth.empty(), entry)])
    assert batch.images[0].permute(1, 2, 0).tolist() == image.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batch.from_samples([]), "Batch.from_samples: expected at least one sample"),
        (
            lambda: Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), (), ()),
            "Batch.truths: expected one for each of the 2 images, found 0",
        ),
        (
            lambda: Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (truth(),), ()),
            "Batch.metas: expected one for each of the 1 images, found 0",
        ),
        (
            lambda: sample(4, 5, 0, input_size=(5, 4)),
            r"Sample.meta.input_size of 000001: expected the size of the image \(4, 5\)",
        ),
    ],
)
def test_a_faulty_batch_or_sample_is_named(make, message):
    with pytest.raises(StructureError, match=message):
        make()


def test_an_image_of_floats_is_refused():
    with pytest.raises((StructureError, TypeCheckError)):
        Sample(np.zeros((4, 5, 3)), GroundTruth.empty(), meta(input_size=(4, 5)))


def test_moving_to_a_device_keeps_the_content():
    device = torch.device("cpu")
    assert_close(truth().to(device).boxes, BOXES)
    assert detections().to(device).labels.tolist() == [0, 1]
    batch = Batch.from_samples([sample(2, 5, 7)]).to(device)
    assert int(batch.images.sum()) == 2 * 5 * 3 * 7


def test_ground_truth_survives_pickling():
    truth = GroundTruth(torch.tensor([[1.5, 2, 3, 4]]), torch.tensor([7]), torch.tensor([True]))
    again = pickle.loads(pickle.dumps(truth))
    for name in ("boxes", "labels", "difficult"):
        assert torch.equal(getattr(again, name), getattr(truth, name))
    assert len(pickle.loads(pickle.dumps(GroundTruth.empty()))) == 0


def test_joints_survive_pickling():
    again = pickle.loads(pickle.dumps(truth(joints=JOINTS)))
    assert torch.equal(again.joints, JOINTS)
    assert torch.equal(again.boxes, BOXES)
    empty = GroundTruth(*(column[:0] for column in (BOXES, torch.ones(2).long(), BOXES[:, 0] > 0)))
    nobody = GroundTruth(empty.boxes, empty.labels, empty.difficult, JOINTS[:0])
    assert pickle.loads(pickle.dumps(nobody)).joints.shape == (0, 3, 3)


def test_boxes_may_lie_anywhere():
    assert len(truth(torch.tensor([[50.0, 1, 51, 2], [1, 50, 2, 51]]))) == 2


def test_a_sample_of_an_image_is_in_its_own_frame():
    image = np.zeros((30, 20, 3), dtype=np.uint8)
    plain = Sample.of_image(image, "dog", Path("dog.jpg"))
    assert plain.meta == ImageMeta("dog", Path("dog.jpg"), (30, 20), (30, 20))
    assert len(plain.truth) == 0
    truth = whole_image_truth((30, 20), 1)
    assert Sample.of_image(image, "dog", truth=truth).truth is truth


def test_class_names_are_of_all_labels():
    names = ("cat", "dog")
    assert dataclasses.replace(detections(labels=(1, 0)), class_names=names).class_names == names
    with pytest.raises(StructureError, match=r"class_names: .* label 2, found 2"):
        dataclasses.replace(detections(labels=(0, 2)), class_names=names)
    assert len(dataclasses.replace(Detections.empty(), class_names=())) == 0
