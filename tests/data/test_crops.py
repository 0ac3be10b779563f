import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data import DetectionDataset, EvaluationBatches, read_dataset
from detect.data.loading import crops as module
from detect.data.loading.batches import SampleSource
from detect.data.loading.crops import (
    MAX_TRIES,
    ObjectCrops,
    crop_boxes,
)
from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta, InputSpec, Sample
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml, photo
from tests.reference.boxes import area, intersection, iou


def truth_of(*boxes, labels=None, difficult=None):
    count = len(boxes)
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [0] * count, dtype=torch.int64),
        torch.tensor(difficult or [False] * count, dtype=torch.bool),
    )


class Images:
    """Images in memory: pixel (y, x) of image k is (k, y, x); it counts what is asked for."""

    def __init__(self, truths, size=(60, 80), class_names=("cat", "dog")):
        self.class_names = class_names
        self.truths = truths
        self.metas = [
            ImageMeta(f"p{number}", Path(f"p{number}.jpg"), size, size)
            for number in range(len(truths))
        ]
        self.asked = []

    def __len__(self):
        return len(self.truths)

    def __getitem__(self, index):
        self.asked.append(index)
        meta = self.metas[index]
        image = np.zeros((*meta.original_size, 3), np.uint8)
        image[..., 0] = index
        image[..., 1] = np.arange(image.shape[0])[:, None]
        image[..., 2] = np.arange(image.shape[1])
        return Sample(image, self.truths[index], meta)


def small_set():
    return Images(
        [
            truth_of((10, 20, 30, 30), (0, 0, 10, 10), labels=[1, 0], difficult=[False, True]),
            GroundTruth.empty(),
            truth_of((40, 10, 60, 50), labels=[1]),
        ]
    )


def many_objects(num_images=40, size=(60, 80)):
    """Images of none to three random objects."""
    generator = np.random.default_rng(0)
    truths = []
    for number in range(num_images):
        low = generator.integers(0, [size[1] - 20, size[0] - 20], (number % 4, 2))
        boxes = np.concatenate([low, low + generator.integers(3, 20, low.shape)], axis=1)
        truths.append(truth_of(*boxes.tolist()))
    return Images(truths, size)


# ---- the crop of an object --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "context", "expected"),
    [
        ((10, 20, 30, 30), 0.1, (8, 19, 32, 31)),
        ((10, 20, 30, 30), 0.0, (10, 20, 30, 30)),
        ((10, 20, 30, 30), 0.5, (0, 15, 40, 35)),
        ((10.2, 20.7, 29.1, 29.9), 0.0, (10, 20, 30, 30)),  # outward
        ((8, 20, 33, 45), 0.28, (1, 13, 40, 52)),  # 0.28 × 25 is a little more than 7
        ((2, 3, 78, 59), 0.1, (0, 0, 80, 60)),  # clipped
        ((10, 20, 30, 30), 100.0, (0, 0, 80, 60)),
        ((5, 7, 6, 30), 0.0, (5, 7, 7, 30)),  # too narrow
        ((5.25, 7.5, 5.75, 7.75), 0.0, (5, 7, 7, 9)),
        ((79, 59, 80, 60), 0.0, (78, 58, 80, 60)),  # grows away from the edge
    ],
)
def test_crop_boxes(box, context, expected):
    assert crop_boxes(np.array([box], np.float64), (60, 80), context).tolist() == [list(expected)]


def test_an_image_of_one_pixel_gives_a_crop_of_one_pixel():
    boxes = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert crop_boxes(boxes, (1, 1), 0.1).tolist() == [[0, 0, 1, 1]]
    assert crop_boxes(boxes, (1, 9), 0.1).tolist() == [[0, 0, 2, 1]]


def test_no_boxes_no_crops():
    assert crop_boxes(np.zeros((0, 4)), (60, 80), 0.1).shape == (0, 4)


def test_each_object_is_a_sample_that_it_fills():
    crops = ObjectCrops(small_set())
    assert isinstance(crops, SampleSource)
    assert crops.class_names == ("cat", "dog")
    assert crops.labels.dtype == np.int64
    assert crops.labels.tolist() == [1, 0, 1]
    assert crops.boxes.tolist() == [[8, 19, 32, 31], [0, 0, 11, 11], [38, 6, 62, 54]]
    assert crops.sizes.tolist() == [[12, 24], [11, 11], [48, 24]]
    assert crops.image_numbers.tolist() == [0, 0, 2]
    assert crops.image_ids == ("p0_0", "p0_1", "p2_0")
    assert crops.class_counts() == {"cat": 1, "dog": 2}
    assert crops.num_unplaced == 0
    sample = crops[2]
    assert sample.truth.boxes.tolist() == [[0, 0, 24, 48]]
    assert (sample.truth.labels.tolist(), sample.truth.difficult.tolist()) == ([1], [False])
    assert sample.meta.image_id == "p2_0"
    assert sample.meta.path == Path("p2.jpg")
    assert sample.meta.original_size == sample.meta.input_size == (48, 24)
    assert sample.image[0, 0].tolist() == [2, 6, 38]
    assert sample.image[-1, -1].tolist() == [2, 53, 61]


def test_difficult_objects_are_the_callers_choice():
    crops = ObjectCrops(small_set())
    assert crops[1].truth.difficult.tolist() == [False]  # a sample is not difficult as such
    assert len(crops) == 3


def test_indexing():
    crops = ObjectCrops(small_set())
    assert crops[-1].meta.image_id == "p2_0"
    with pytest.raises(IndexError):
        crops[3]


def test_consecutive_crops_of_an_image_decode_it_once():
    images = small_set()
    crops = ObjectCrops(images, background_per_image=2)
    assert images.asked == []  # nothing is decoded before it is asked for
    for number in range(len(crops)):
        crops[number]
    assert images.asked == [0, 1, 2]
    crops[0]
    assert images.asked == [0, 1, 2, 0]


def test_a_crop_can_be_written_to():
    crops = ObjectCrops(small_set(), context=100.0)
    before = crops[0].image.copy()
    crops[0].image[:] = 255
    np.testing.assert_array_equal(crops[0].image, before)
    assert crops[0].image.base is None  # and keeps no image in memory


def test_a_worker_gets_no_decoded_image():
    crops = ObjectCrops(small_set())
    crops[0]
    assert crops._decoded is not None
    copy = pickle.loads(pickle.dumps(crops))
    assert copy._decoded is None
    np.testing.assert_array_equal(copy[0].image, crops[0].image)


@pytest.mark.parametrize("context", [-0.1, float("nan"), float("inf")])
def test_context_out_of_range(context):
    with pytest.raises(DetectError, match="context: expected a number of 0 or more"):
        ObjectCrops(small_set(), context=context)


def test_a_set_without_objects():
    with pytest.raises(DetectError, match="found none in 2 images"):
        ObjectCrops(Images([GroundTruth.empty()] * 2), background_per_image=1)


# ---- background -------------------------------------------------------------------------------


def backgrounds(crops):
    """The background crops by the number of their image."""
    rows = np.flatnonzero(crops.labels == len(crops.class_names) - 1)
    return [(int(crops.image_numbers[row]), crops.boxes[row].tolist()) for row in rows]


def test_background_is_one_more_class():
    crops = ObjectCrops(small_set(), background_per_image=2)
    assert crops.class_names == ("cat", "dog", "background")
    assert crops.class_counts() == {"cat": 1, "dog": 2, "background": 6}
    assert crops.labels.tolist() == [1, 0, 2, 2, 2, 2, 1, 2, 2]
    assert crops.image_ids == (
        "p0_0",
        "p0_1",
        "p0_background_0",
        "p0_background_1",
        "p1_background_0",
        "p1_background_1",
        "p2_0",
        "p2_background_0",
        "p2_background_1",
    )
    sample = crops[4]
    x1, y1 = crops.boxes[4, :2].tolist()
    assert sample.meta.image_id == "p1_background_0"
    assert sample.truth.labels.tolist() == [2]
    assert sample.image[0, 0].tolist() == [1, y1, x1]


def coverage(place, obj):
    """The share of an object that a place shows."""
    return intersection(place, obj) / area(obj)


def test_background_keeps_away_from_objects_and_has_their_sizes():
    images = many_objects()
    crops = ObjectCrops(images, background_per_image=5)
    places = backgrounds(crops)
    assert len(places) + crops.num_unplaced == 5 * 40
    assert len(places) > 190
    objects = crops.boxes[crops.labels != 2]
    sizes = {(w, h) for w, h in (objects[:, 2:] - objects[:, :2]).tolist()}
    num_touching = 0
    for number, place in places:
        x1, y1, x2, y2 = place
        assert (x2 - x1, y2 - y1) in sizes
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= 80
        assert y2 <= 60
        for obj in images.truths[number].boxes.tolist():
            assert iou(place, obj) < 0.3
            assert coverage(place, obj) < 0.3
            num_touching += coverage(place, obj) > 0
    assert num_touching > 5  # the rule is not "no object at all"


def test_background_lies_anywhere_up_to_the_edges():
    images = Images([truth_of((0, 0, 79, 59))] + [GroundTruth.empty()] * 400)
    crops = ObjectCrops(images, context=0.0, background_per_image=1)
    corners = [tuple(place[:2]) for _, place in backgrounds(crops)]
    counts = [corners.count(corner) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert sum(counts) == 400  # the four places there are
    assert min(counts) > 60


def is_background(place, *boxes):
    places = np.array([place])
    return bool(module._is_background(places, np.array(boxes, np.float64).reshape(-1, 4))[0])


def test_the_limit_of_iou():
    # a place of 20 × 30 within an object of 50 × 40: exactly 0.3, then a little less
    assert not is_background((10, 10, 30, 40), (0, 0, 50, 40))
    assert is_background((10, 10, 30, 40), (0, 0, 51, 40))


def test_the_limit_of_coverage():
    # an IoU of 0.003, but 3 of 10 columns of the object are seen
    assert not is_background((0, 0, 100, 100), (97, 50, 107, 60))
    assert is_background((0, 0, 100, 100), (97.5, 50, 107.5, 60))


def test_one_object_is_enough():
    assert is_background((0, 0, 10, 10))
    assert not is_background((0, 0, 10, 10), (20, 20, 30, 30), (2, 2, 9, 9))


def test_background_does_not_depend_on_what_was_asked_for():
    first = ObjectCrops(many_objects(), background_per_image=3)
    again = ObjectCrops(many_objects(), background_per_image=3)
    for number in reversed(range(len(again))):
        again[number]
    np.testing.assert_array_equal(again.boxes, first.boxes)
    other = ObjectCrops(many_objects(), background_per_image=3, seed=1)
    assert backgrounds(other) != backgrounds(first)
    # images draw for themselves, and more crops of an image don't change its first ones
    assert set(map(str, backgrounds(first))) <= set(
        map(str, backgrounds(ObjectCrops(many_objects(), background_per_image=4)))
    )
    alike = backgrounds(ObjectCrops(Images([truth_of((0, 0, 9, 9))] * 5), background_per_image=1))
    assert len({str(place) for _, place in alike}) > 1


def test_background_that_finds_no_place_is_counted():
    images = Images([truth_of((0, 0, 80, 60)), GroundTruth.empty()])
    crops = ObjectCrops(images, background_per_image=3)
    assert crops.num_unplaced == 3  # beside an image that is all object there is nothing
    assert crops.class_counts() == {"cat": 1, "dog": 0, "background": 3}
    assert crops.image_ids[1:] == tuple(f"p1_background_{number}" for number in range(3))


def test_sizes_that_do_not_fit_a_small_image_are_passed_over():
    images = Images([truth_of((0, 0, 60, 50), (0, 50, 8, 58)), GroundTruth.empty()])
    images.metas[1] = ImageMeta("small", None, (12, 12), (12, 12))
    crops = ObjectCrops(images, background_per_image=20)
    places = [place for number, place in backgrounds(crops) if number == 1]
    assert len(places) == 20
    assert all(x2 - x1 == 9 and y2 - y1 == 10 for x1, y1, x2, y2 in places)


def test_it_is_tried_50_times(monkeypatch):
    sizes = []

    def none_is_free(places, _):
        sizes.append(len(places))
        return np.zeros(len(places), dtype=bool)

    monkeypatch.setattr(module, "_is_background", none_is_free)
    crops = ObjectCrops(small_set(), background_per_image=2)
    assert crops.num_unplaced == 6
    assert sizes == [MAX_TRIES] * 6 == [50] * 6


def test_background_keeps_away_from_difficult_objects_that_were_left_out():
    columns = [(x, 0, x + 8, 60) for x in range(8, 80, 8)]
    whole = truth_of((0, 0, 8, 60), *columns, difficult=[False] + [True] * len(columns))
    plain = Images([whole.without_difficult()])
    assert ObjectCrops(plain, context=0.0, background_per_image=3).num_unplaced == 0
    # a place as wide as a column shows half of one at least
    crops = ObjectCrops(plain, context=0.0, background_per_image=3, avoid=[whole])
    assert crops.num_unplaced == 3
    assert crops.class_counts() == {"cat": 1, "dog": 0, "background": 0}
    with pytest.raises(ValueError, match="2 truths for 1 images"):
        ObjectCrops(plain, background_per_image=3, avoid=[whole, whole])


def test_background_needs_its_name():
    images = Images([truth_of((0, 0, 9, 9))], class_names=("background", "dog"))
    assert ObjectCrops(images).class_names == ("background", "dog")
    with pytest.raises(DetectError, match="has a class 'background' already"):
        ObjectCrops(images, background_per_image=1)


def test_background_out_of_range():
    with pytest.raises(DetectError, match="background_per_image: expected 0 or more, found -1"):
        ObjectCrops(small_set(), background_per_image=-1)


# ---- with VOC data sets -----------------------------------------------------------------------


def test_crops_of_a_voc_set(tmp_path):
    folder = VOCFolder(tmp_path / "set")
    hard = object_xml("cat", (5, 6, 27, 28), "<difficult>1</difficult>")
    folder.add("000012", annotation_xml(hard, object_xml("dog", (3, 4, 22, 23))), suffix=".png")
    folder.add("000013", annotation_xml(), photo(seed=1), suffix=".png")
    folder.split("train", "000012", "000013")
    dataset = read_dataset(folder.root, "train")
    crops = ObjectCrops(dataset, background_per_image=1)
    assert crops.image_ids[:2] == ("000012_0", "000012_1")
    assert crops.labels.tolist()[:2] == [0, 1]
    np.testing.assert_array_equal(crops[1].image, dataset[0].image[1:25, 0:24])
    easy = ObjectCrops(dataset.without_difficult(), background_per_image=1, avoid=dataset.truths)
    assert easy.class_counts()["cat"] == 0
    batches = list(EvaluationBatches(crops, InputSpec((16, 16)), batch_size=2))
    truths = [truth for batch in batches for truth in batch.truths]
    assert [truth.labels.item() for truth in truths] == crops.labels.tolist()
    assert all(truth.boxes.tolist() == [[0, 0, 16, 16]] for truth in truths)


def test_a_replaced_image_is_an_error(tmp_path):
    folder = VOCFolder(tmp_path / "set")
    folder.add("000012")
    folder.split("train", "000012")
    crops = ObjectCrops(read_dataset(folder.root, "train"))
    (folder.images / "000012.jpg").write_bytes(photo((30, 30)))
    with pytest.raises(DetectError, match="replaced meanwhile"):
        crops[0]


def test_crops_of_voc2012(shared):
    root = shared / "data" / "voc2012_sample"
    dataset = read_dataset(root, "trainval", classes="voc", verify_images=False)
    crops = ObjectCrops(dataset, background_per_image=4)
    counts = crops.class_counts()
    assert counts.pop("background") + crops.num_unplaced == 4 * len(dataset)
    assert counts == dataset.class_counts()
    assert isinstance(dataset, DetectionDataset)
    for number in range(0, len(crops), 17):
        assert crops[number].image.shape[:2] == tuple(crops.sizes[number])
