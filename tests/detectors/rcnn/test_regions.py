import torch
from torch.testing import assert_close

from detect.detectors.rcnn.regions import tabulate_regions
from detect.ops import decode_deltas
from tests.detectors.rcnn.training_pictures import DrawnPictures, Silent
from tests.reference.boxes import iou as reference_iou


def tabulate(pictures, **options):
    values = {"max_proposals": 100, "negative_iou": 0.3, "regression_iou": 0.6, **options}
    return tabulate_regions(pictures, 2, watch=Silent(), **values)


def test_the_table_says_what_the_paper_says_of_each_region():
    pictures = DrawnPictures(8)
    table = tabulate(pictures)
    row = entry = 0
    for number in range(len(pictures)):
        truth, proposals = pictures.regions(number)
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
    pictures = DrawnPictures(4)
    table = tabulate(pictures, max_proposals=2)
    counts = [len(truth) + 2 for truth in pictures.truths]
    assert table.offsets.tolist() == [0, *torch.tensor(counts).cumsum(0).tolist()]


def test_pictures_without_objects_and_without_proposals():
    pictures = DrawnPictures(1)  # its only picture has no object
    table = tabulate(pictures)
    assert table.negatives.all()
    assert not table.regressed.any()
    pictures.proposals[0] = torch.zeros(0, 4)
    assert tabulate(pictures).num_regions == 0
