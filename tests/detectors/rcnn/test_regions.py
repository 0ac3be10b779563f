import torch
from torch.testing import assert_close

from detect.detectors.rcnn.regions import tabulate_regions
from detect.ops import decode_deltas
from tests.detectors.rcnn.training_images import DrawnImages, Silent
from tests.reference.boxes import iou as reference_iou


def tabulate(images, **options):
    values = {"max_proposals": 100, "negative_iou": 0.3, "regression_iou": 0.6, **options}
    return tabulate_regions(images, 2, watch=Silent(), **values)


def test_the_table_says_what_the_paper_says_of_each_region():
    images = DrawnImages(8)
    table = tabulate(images)
    row = entry = 0
    for number in range(len(images)):
        truth, proposals = images.regions(number)
        assert table.rows_of(number) == slice(row, row + len(truth) + len(proposals))
        boxes = [*truth.boxes.tolist(), *proposals.tolist()]
        for place, box in enumerate(boxes):
            overlaps = [reference_iou(box, other) for other in truth.boxes.tolist()]
            is_object = place < len(truth)
            assert table.labels[row] == (truth.labels[place] if is_object else -1)
            for label in range(2):
                own = [o for o, n in zip(overlaps, truth.labels, strict=True) if n == label]
                assert table.negatives[row, label] == (max(own, default=0) < 0.3)
            learns = not is_object and max(overlaps, default=0) >= 0.6
            assert table.regressed[row] == learns
            if learns:
                meant = overlaps.index(max(overlaps))
                assert table.classes[entry] == truth.labels[meant]
                found = decode_deltas(table.deltas[entry], torch.tensor(box))
                assert_close(found, truth.boxes[meant], atol=1e-3, rtol=1e-4)
                entry += 1
            row += 1
    assert (row, entry) == (table.num_regions, len(table.classes))
    assert entry > 0


def test_no_more_proposals_than_asked_for():
    images = DrawnImages(4)
    table = tabulate(images, max_proposals=2)
    counts = [len(truth) + 2 for truth in images.truths]
    assert table.offsets.tolist() == [0, *torch.tensor(counts).cumsum(0).tolist()]


def test_images_without_objects_and_without_proposals():
    images = DrawnImages(1)  # its only image has no object
    table = tabulate(images)
    assert table.negatives.all()
    assert not table.regressed.any()
    images.proposals[0] = torch.zeros(0, 4)
    assert tabulate(images).num_regions == 0
